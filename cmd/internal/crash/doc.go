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
// Linux on amd64 only; no privilege is needed.
package crash
