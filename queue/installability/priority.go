package installability

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"

	"packmill/internal/compression"
)

// The priorities of apt (apt_preferences(5)).
const (
	automatic   = 500
	upgrades    = 100 // NotAutomatic and ButAutomaticUpgrades
	notByItself = 1   // NotAutomatic
)

// priorityOf is apt's priority of the packages of a list: as the Release says that apt
// keeps beside its lists, under the name that theirs begin with.
func priorityOf(path string) int {
	list, _ := compression.Cut(filepath.Base(path))
	if !strings.HasSuffix(list, "_Packages") {
		return automatic
	}
	release, longest := "", 0
	for _, kind := range []string{"_InRelease", "_Release"} {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"+kind))
		for _, f := range found {
			if of := strings.TrimSuffix(filepath.Base(f), kind); len(of) > longest && strings.HasPrefix(list, of+"_") {
				release, longest = f, len(of)
			}
		}
	}
	f, err := os.Open(release)
	if err != nil {
		return automatic
	}
	defer f.Close()
	says := map[string]bool{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), ":")
		if says[name] = strings.TrimSpace(value) == "yes"; name == "SHA256" {
			break // files follow
		}
	}
	switch {
	case says["NotAutomatic"] && says["ButAutomaticUpgrades"]:
		return upgrades
	case says["NotAutomatic"]:
		return notByItself
	}
	return automatic
}
