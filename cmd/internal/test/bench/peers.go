package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A peer is another program that keeps an archive.
type peer struct {
	name  string
	fills string  // how fill takes the packages
	times float64 // how many times more CPU than ours it shall need for one more of 10,000; 0: no goal

	fill func(context.Context, *rival) (used, error)                       // takes all packages of the stock
	one  func(ctx context.Context, r *rival, changes string) (used, error) // includes one more upload
}

// A rival is a peer's archive.
type rival struct {
	s          *stock
	root       string
	ours       string // our archive, which has the same packages
	gnupg, fpr string
}

var archivePeers = []peer{
	{"reprepro", "includedeb, and its update for the sources", 5, fillReprepro, oneReprepro},
	{"aptly", "repo add, publish", 20, aptlyWith().fill, aptlyWith().one},
	{"aptly without bz2 and Contents",
		"repo add, publish", 0, aptlyWith("-skip-bz2", "-skip-contents").fill, aptlyWith("-skip-bz2", "-skip-contents").one},
	{"apt-ftparchive", "generate, release", 0, fillFtparchive, oneFtparchive},
}

// install takes from Debian what the figures stand beside: packages by their programs.
func install(b *bench, packages map[string]string) error {
	var missing []string
	for program, name := range packages {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	if os.Geteuid() != 0 {
		return fmt.Errorf("not installed: %s; run as root: apt-get install %s",
			strings.Join(missing, ", "), strings.Join(missing, " "))
	}
	b.progress("installing %s", strings.Join(missing, ", "))
	_, err := measured([]string{"DEBIAN_FRONTEND=noninteractive"}, "/",
		append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, missing...)...)
	return err
}

func writeFiles(root string, files map[string]string) error {
	for name, text := range files {
		dir, file := filepath.Split(filepath.Clean(root) + "/" + name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if file == "" {
			continue // the name is a directory's
		}
		if err := os.WriteFile(dir+file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// fillReprepro takes the .debs in as few processes as there can be, and the
// sources, of which includedsc takes one a process, from our archive.
func fillReprepro(ctx context.Context, r *rival) (used, error) {
	err := writeFiles(r.root, map[string]string{
		"conf/distributions": "Codename: bench\nSuite: bench\nComponents: main\nArchitectures: amd64 source\nSignWith: " +
			r.fpr + "\nDebIndices: Packages Release .gz .xz\nDscIndices: Sources Release .gz .xz\nContents: .gz .xz\n" +
			"Update: sources\n",
		"conf/updates": "Name: sources\nMethod: file:" + r.ours +
			"\nSuite: bench\nComponents: main\nArchitectures: source\nVerifyRelease: blindtrust\n",
		"conf/incoming": "Name: in\nIncomingDir: in\nTempDir: tmp\nDefault: bench\nAllow: unstable>bench\n" +
			"Permit: unused_files\n",
		"in/": "", "tmp/": "",
	})
	if err != nil {
		return used{}, err
	}
	debs, err := filepath.Glob(filepath.Join(r.s.dir, "*.deb"))
	if err != nil {
		return used{}, err
	}
	var sum used
	const atOnce = 10_000 // arguments of one process
	for debs := range slices.Chunk(debs, atOnce) {
		// With the defaults that a package may lack.
		u, err := signing(ctx, r.gnupg, r.s.dir,
			append([]string{"reprepro", "-b", r.root, "-S", "misc", "-P", "optional", "--export=never", "includedeb", "bench"},
				debs...)...)
		if sum = sum.plus(u); err != nil {
			return sum, err
		}
	}
	u, err := signing(ctx, r.gnupg, r.root, "reprepro", "-b", r.root, "--export=force", "update", "bench")
	return sum.plus(u), err
}

func oneReprepro(ctx context.Context, r *rival, changes string) (used, error) {
	list, err := os.ReadDir(filepath.Dir(changes))
	if err != nil {
		return used{}, err
	}
	for _, e := range list {
		if err := copyFile(filepath.Join(filepath.Dir(changes), e.Name()),
			filepath.Join(r.root, "in", e.Name())); err != nil {
			return used{}, err
		}
	}
	return signing(ctx, r.gnupg, r.root, "reprepro", "-b", r.root, "processincoming", "in")
}

// aptlyFlags are for its publish.
type aptlyFlags []string

func aptlyWith(flags ...string) aptlyFlags { return flags }

func (f aptlyFlags) run(ctx context.Context, r *rival, commands ...[]string) (used, error) {
	var sum used
	for _, args := range commands {
		if args[0] == "publish" {
			args = slices.Concat(args[:2], []string{"-batch", "-gpg-key=" + r.fpr}, f, args[2:])
		}
		u, err := signing(ctx, r.gnupg, r.root, append([]string{"aptly", "-config=" + r.root + "/aptly.conf"}, args...)...)
		if sum = sum.plus(u); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func (f aptlyFlags) fill(ctx context.Context, r *rival) (used, error) {
	err := writeFiles(r.root, map[string]string{"aptly.conf": fmt.Sprintf(`{"rootDir":%q,"gpgProvider":"gpg","gpgDisableVerify":true,"architectures":["amd64","source"]}`, r.root)})
	if err != nil {
		return used{}, err
	}
	return f.run(ctx, r,
		[]string{"repo", "create", "-distribution=bench", "-component=main", "bench"},
		[]string{"repo", "add", "bench", r.s.dir},
		[]string{"publish", "repo", "-acquire-by-hash", "bench"})
}

func (f aptlyFlags) one(ctx context.Context, r *rival, changes string) (used, error) {
	return f.run(ctx, r,
		[]string{"repo", "include", "-no-remove-files", "-accept-unsigned", "-ignore-signatures", "-repo=bench",
			filepath.Dir(changes)},
		[]string{"publish", "update", "bench"})
}

func ftparchive(ctx context.Context, r *rival) (used, error) {
	return signing(ctx, r.gnupg, r.root, "sh", "-ec", `
		sums="-o APT::FTPArchive::SHA1=false -o APT::FTPArchive::SHA512=false"
		apt-ftparchive $sums generate ftp.conf
		apt-ftparchive $sums -o APT::FTPArchive::Release::Suite=bench -o APT::FTPArchive::Release::Codename=bench release dists/bench >Release.new
		mv Release.new dists/bench/Release
		gpg --batch --yes --local-user "$0" --armor --detach-sign -o dists/bench/Release.gpg dists/bench/Release
		gpg --batch --yes --local-user "$0" --clearsign -o dists/bench/InRelease dists/bench/Release`, r.fpr)
}

func fillFtparchive(ctx context.Context, r *rival) (used, error) {
	err := writeFiles(r.root, map[string]string{
		"ftp.conf": fmt.Sprintf(`Dir { ArchiveDir %q; CacheDir %q; };
Default { Packages::Compress "gzip xz"; Sources::Compress "gzip xz"; Contents::Compress "gzip xz"; };
TreeDefault { Directory "pool"; SrcDirectory "pool"; BinCacheDB "cache.db"; SrcCacheDB "sources.db"; };
Tree "dists/bench" { Sections "main"; Architectures "amd64 source"; };
`, r.root, r.root),
		"dists/bench/main/binary-amd64/": "", "dists/bench/main/source/": "", "pool/": "",
	})
	if err != nil {
		return used{}, err
	}
	if _, err := limited(ctx, nil, r.root, "sh", "-ec",
		`find "$0" -name '*.changes' -prune -o -type f -print0 | xargs -0 cp -l -t pool`, r.s.dir); err != nil {
		return used{}, err
	}
	return ftparchive(ctx, r)
}

func oneFtparchive(ctx context.Context, r *rival, changes string) (used, error) {
	if _, err := limited(ctx, nil, r.root, "sh", "-ec",
		`cp "$0"/*.deb "$0"/*.dsc "$0"/*.tar.* pool/`, filepath.Dir(changes)); err != nil {
		return used{}, err
	}
	return ftparchive(ctx, r)
}
