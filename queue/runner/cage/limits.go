package cage

import (
	"errors"
	"time"
)

// ErrSetup is wrapped by errors that trying again does not mend: something
// is not installed or not allowed on this machine.
var ErrSetup = errors.New("this machine is not set up for builds")

// Limits end a command. Zero means no limit.
type Limits struct {
	Wall    time.Duration // from start to end
	Silence time.Duration // without a byte of log
	Log     int64         // bytes of log
	Memory  int64         // bytes, by control group; includes a scratch space in memory
	Tasks   int           // processes and threads, by control group
	Disk    int64         // bytes of scratch space and results
}

// After is what is left for a second command of the same build.
func (l Limits) After(x *Exit) Limits {
	if x == nil {
		return l
	}
	if l.Wall > 0 {
		l.Wall = max(time.Millisecond, l.Wall-x.Usage.End.Sub(x.Usage.Start))
	}
	if l.Log > 0 {
		l.Log = max(1, l.Log-x.Usage.Log)
	}
	return l
}

// Names of the limits in Exit.Limit.
const (
	LimitWall    = "wall"
	LimitSilence = "silence"
	LimitLog     = "log"
	LimitMemory  = "memory"
	LimitTasks   = "tasks"
	LimitDisk    = "disk"
)

// Usage is what a command took. Zero where the machine cannot tell.
type Usage struct {
	Start, End time.Time
	CPU        time.Duration // user and system, all processes
	Memory     int64         // highest use in bytes
	Disk       int64         // highest use of scratch space and results seen, bytes
	Log        int64         // bytes of log
	Overhead   time.Duration // spent by the runner before and after the builder

	CacheHits, CacheMisses int64 // of the compiler cache, as the build says
}

// Exit is how a caged command ended.
type Exit struct {
	Report         // what the warden says
	Limit   string // the limit that ended it
	Stopped bool   // the context ended it
	Killed  bool   // no report came
	Usage   Usage
}

// After adds what an earlier command of the same build took.
func (x *Exit) After(first *Exit) {
	if first == nil {
		return
	}
	x.Usage.Start = first.Usage.Start
	x.Usage.CPU += first.Usage.CPU
	x.Usage.Memory = max(x.Usage.Memory, first.Usage.Memory)
	x.Usage.Disk = max(x.Usage.Disk, first.Usage.Disk)
	x.Usage.Log += first.Usage.Log
	x.Spent += first.Spent
}
