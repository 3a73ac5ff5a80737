package runner

import (
	"regexp"

	"packmill/internal/pattern"
)

// signs are lines at a failed build's end that speak of the machine. They
// only cause another try, so a package that writes them gains nothing.
var signs = []struct {
	pattern func() *regexp.Regexp
	suspect string
}{
	{pattern.Lazy(`No space left on device|Disk quota exceeded|\bENOSPC\b`), SuspectSpace},
	{pattern.Lazy(`(?m)Killed signal terminated program|virtual memory exhausted|Cannot allocate memory|` +
		`LLVM ERROR: out of memory|out of memory allocating \d+ bytes|java\.lang\.OutOfMemoryError|\(core dumped\).*oom|` +
		`fatal error: runtime: out of memory`), SuspectMemory},
	{pattern.Lazy(`(?:[Cc]annot fork|fork:(?: retry:)?|vfork:|posix_spawn: |clone: |creat(?:e|` +
		`ing) (?:new )?(?:OS )?thread:?).*Resource temporarily unavailable|(?m)(?:^|: )Cannot fork$`), SuspectTasks},
	{pattern.Lazy(`internal compiler error|Segmentation fault signal terminated program|` +
		`the compiler unexpectedly panicked|PLEASE submit a bug report to .*llvm|fatal error: (?:Aborted|` +
		`Bus error) signal terminated program`), SuspectCompiler},
	{pattern.Lazy(`(?m)^E: Build killed with signal TERM after \d+ minutes of inactivity`), SuspectStall},
}

// suspect looks in the end of a log for a fault of the machine.
func suspect(log []byte) string {
	for _, s := range signs {
		if s.pattern().Match(log) {
			return s.suspect
		}
	}
	return ""
}
