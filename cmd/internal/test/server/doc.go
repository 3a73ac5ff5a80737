// Package server holds the tests of the system as a whole: the programs as they
// are installed, with the real sshd, dput, gpg, sbuild and apt around them.
// They carry the build tag system; scripts/test prepares a machine and runs
// them. The documentation's own tests need no tag.
package server
