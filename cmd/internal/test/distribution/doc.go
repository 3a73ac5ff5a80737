// Package distribution takes a part of a real distribution through the real daemons and real builders.
package distribution
