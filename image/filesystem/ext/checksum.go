package ext

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c goes on from a checksum with p. Unlike the usual CRC-32C, the first one is 0xFFFFFFFF and none is inverted.
func crc32c(sum uint32, p ...[]byte) uint32 {
	sum = ^sum
	for _, b := range p {
		sum = crc32.Update(sum, castagnoli, b)
	}
	return ^sum
}

// crc16Table has the CRC-16 of each byte alone: the polynomial is x^16+x^15+x^2+1, reflected.
var crc16Table = func() (table [256]uint16) {
	for i := range table {
		sum := uint16(i)
		for range 8 {
			sum = sum>>1 ^ -(sum&1)&0xA001
		}
		table[i] = sum
	}
	return table
}()

// crc16 goes on from a CRC-16 with p. The first one is 0xFFFF.
func crc16(sum uint16, p ...[]byte) uint16 {
	for _, b := range p {
		for _, c := range b {
			sum = sum>>8 ^ crc16Table[byte(sum)^c]
		}
	}
	return sum
}
