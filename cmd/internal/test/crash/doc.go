// Package crash stops programs at every system call that changes a directory
// tree, and builds the disks that a power cut could leave behind.
//
// It knows nothing of packages and queues. Trace runs a program under
// ptrace(2), numbers the calls that change one of the given trees, over all
// threads in one count, and lets a judge choose for each call whether it
// happens, fails, fails after it was done, is cut short, or is the last thing
// that the program lives to see. Record keeps what a run did; its States are
// the disks that a cut could leave.
//
// Calls that change a tree run one at a time: a thread that comes to one while
// another is inside one waits. So the count is an order of events, and a
// record of it can be replayed. Everything else runs at full speed, because a
// seccomp filter picks the calls that stop.
//
// A power cut leaves on the disk what was synced and, of the rest, any
// beginning of each directory's changes and of each file's contents, apart from
// each other; Record says it in full. That allows more than ext4, xfs and btrfs
// do. A cut is tried after every call of every program, and for the daemons
// another one in the life that follows a kill.
//
// What the tests strike, in system calls that change the tree, and in strikes and
// disks in all, about:
//
//	reviewd                              135    2,550
//	master-buildd, fan-out               265    4,100
//	master-buildd, join                   75    1,060
//	buildd, three jobs                   280    4,400
//	buildd and a builder elsewhere       600    4,000, kills of either end
//	buildd and a cluster's nodes         665    5,200, the same
//	archived, a first version            420    7,450
//	archived, a second version           215    3,000
//	packmill, each of 46 command lines   12 to 240, 28,000 together
//	the engine alone, three loops        205    2,900
//
// EMFILE and ENFILE strike each opening of a file for reading, too.
//
// scripts/test tries some of each by chance; all of it is -crash.all, an hour and
// more of two processors, -crash.part K/N a part of it, -crash.only what a
// failure names. TestVerbs holds that every command of packmill that changes a
// tree is among them.
//
// Linux on amd64 only; no privilege is needed.
package crash
