//go:build linux && amd64

package crash

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// registers of a stopped thread, by their part in a system call.
type registers struct{ unix.PtraceRegs }

func (r *registers) number() uint64 { return r.Orig_rax }
func (r *registers) arg(i int) uint64 {
	switch i {
	case 0:
		return r.Rdi
	case 1:
		return r.Rsi
	case 2:
		return r.Rdx
	case 3:
		return r.R10
	case 4:
		return r.R8
	}
	return r.R9
}

func (r *registers) setArg(i int, v uint64) {
	switch i {
	case 0:
		r.Rdi = v
	case 1:
		r.Rsi = v
	case 2:
		r.Rdx = v
	case 3:
		r.R10 = v
	case 4:
		r.R8 = v
	default:
		r.R9 = v
	}
}

// skip makes the kernel do nothing for the call at whose entry the thread is.
func (r *registers) skip()             { r.Orig_rax = ^uint64(0) }
func (r *registers) result() int64     { return int64(r.Rax) }
func (r *registers) setResult(v int64) { r.Rax = uint64(v) }

func getRegisters(tid int) (*registers, error) {
	var r registers
	if err := unix.PtraceGetRegs(tid, &r.PtraceRegs); err != nil {
		return nil, fmt.Errorf("registers of %d: %w", tid, err)
	}
	return &r, nil
}

func (r *registers) put(tid int) error {
	if err := unix.PtraceSetRegs(tid, &r.PtraceRegs); err != nil {
		return fmt.Errorf("set registers of %d: %w", tid, err)
	}
	return nil
}

// readMemory reads the tracee's memory; it may return less at the end of a mapping.
func readMemory(tid int, addr uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	if n == 0 {
		return b, nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	got, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: n}}, 0)
	runtime.KeepAlive(b)
	if err != nil {
		return nil, fmt.Errorf("read memory of %d at %#x: %w", tid, addr, err)
	}
	return b[:got], nil
}

// readString reads a path of the tracee: at most PATH_MAX bytes, and never over
// the end of a page that may be the last one mapped.
func readString(tid int, addr uint64) (string, error) {
	const page = 4096
	var s []byte
	for len(s) < page {
		n := page - int((addr+uint64(len(s)))%page)
		b, err := readMemory(tid, addr+uint64(len(s)), n)
		if err != nil {
			return "", err
		}
		for i, c := range b {
			if c == 0 {
				return string(append(s, b[:i]...)), nil
			}
		}
		if s = append(s, b...); len(b) < n {
			break
		}
	}
	return "", fmt.Errorf("path of %d at %#x has no end", tid, addr)
}

// injectFilter makes a process that stopped after its exec load a seccomp
// program, as if it had done so itself: the call's instruction is put where the
// program would go on, stepped over, and taken away again.
func injectFilter(pid int, prog []unix.SockFilter) error {
	saved, err := getRegisters(pid)
	if err != nil {
		return err
	}
	code := make([]byte, 8)
	if _, err := unix.PtracePeekText(pid, uintptr(saved.Rip), code); err != nil {
		return fmt.Errorf("read text of %d: %w", pid, err)
	}
	text := append([]byte{0x0f, 0x05}, code[2:]...) // syscall
	if _, err := unix.PtracePokeText(pid, uintptr(saved.Rip), text); err != nil {
		return fmt.Errorf("write text of %d: %w", pid, err)
	}

	// struct sock_fprog and the program, below the red zone of a stack that
	// nobody has used yet.
	size := len(prog) * 8
	at := (saved.Rsp - 256 - 16 - uint64(size)) &^ 15
	data := make([]byte, 16, 16+size)
	binary.LittleEndian.PutUint16(data, uint16(len(prog)))
	binary.LittleEndian.PutUint64(data[8:], at+16)
	for _, f := range prog {
		data = binary.LittleEndian.AppendUint16(data, f.Code)
		data = append(data, f.Jt, f.Jf)
		data = binary.LittleEndian.AppendUint32(data, f.K)
	}
	if _, err := unix.PtracePokeData(pid, uintptr(at), data); err != nil {
		return fmt.Errorf("write stack of %d: %w", pid, err)
	}

	call := func(number, a, b, c uint64) (int64, error) { return stepCall(pid, saved, number, a, b, c) }
	n, err := call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, at)
	if err == nil && n == -int64(unix.EACCES) { // not root
		if _, err = call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err == nil {
			n, err = call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, at)
		}
	}
	if err != nil {
		return err
	}
	if n != 0 {
		return fmt.Errorf("seccomp in %d: %w", pid, unix.Errno(-n))
	}
	if _, err := unix.PtracePokeText(pid, uintptr(saved.Rip), code); err != nil {
		return fmt.Errorf("restore text of %d: %w", pid, err)
	}
	return saved.put(pid)
}

// stepCall lets a process that stands before a call's instruction make the call,
// from the saved registers, and returns its result.
func stepCall(pid int, saved *registers, number, a, b, c uint64) (int64, error) {
	r := *saved
	r.Orig_rax = ^uint64(0)
	r.Rax, r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8 = number, a, b, c, 0, 0
	if err := r.put(pid); err != nil {
		return 0, err
	}
	if err := unix.PtraceSingleStep(pid); err != nil {
		return 0, fmt.Errorf("step %d: %w", pid, err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil {
		return 0, fmt.Errorf("wait for %d: %w", pid, err)
	}
	if !ws.Stopped() || ws.StopSignal() != syscall.SIGTRAP {
		return 0, fmt.Errorf("step %d: stopped with status %#x", pid, ws)
	}
	done, err := getRegisters(pid)
	if err != nil {
		return 0, err
	}
	return done.result(), nil
}
