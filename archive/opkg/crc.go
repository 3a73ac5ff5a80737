package opkg

import "hash/crc32"

// joinCRC is the CRC-32 of a text of which the sum of the first part is a, and that
// of the rest, which has n bytes, is b: a is multiplied by x to the power of the rest's
// bits, modulo the polynomial (RFC 1952 has it; the highest bit is x^0).
func joinCRC(a, b uint32, n int64) uint32 {
	factor := uint32(1) << 31                       // x^0
	for square := uint32(1) << 23; n > 0; n >>= 1 { // x^8, one byte
		if n&1 == 1 {
			factor = times(factor, square)
		}
		square = times(square, square)
	}
	return times(factor, a) ^ b
}

// times multiplies two polynomials modulo that of CRC-32.
func times(a, b uint32) (product uint32) {
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		odd := b & 1
		b >>= 1
		if odd != 0 {
			b ^= crc32.IEEE
		}
	}
	return product
}
