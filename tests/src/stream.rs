//! A byte stream that both ends of a transfer can make for themselves, and its checksum.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

const CHUNK: usize = 64 * 1024;

/// Reads `len` bytes of the stream: every 8 bytes are a hash of their position, so that a lost, doubled or moved
/// piece of any length changes the checksum.
#[derive(Debug)]
pub struct Stream {
    position: u64,
    len: u64,
}

impl Stream {
    /// The first `len` bytes.
    #[must_use]
    pub const fn new(len: u64) -> Self {
        Self { position: 0, len }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = u64::try_from(buffer.len()).unwrap_or(u64::MAX).min(self.len - self.position);
        let start = self.position;
        self.position += wanted;
        let mut filled = 0;
        for word in start / 8.. {
            let offset = usize::try_from((start + filled as u64) % 8).unwrap_or(0);
            let left = usize::try_from(wanted).unwrap_or(usize::MAX) - filled;
            if left == 0 {
                break;
            }
            let bytes = &splitmix64(word).to_le_bytes()[offset..];
            let count = bytes.len().min(left);
            buffer[filled..filled + count].copy_from_slice(&bytes[..count]);
            filled += count;
        }
        Ok(filled)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014) of a counter.
const fn splitmix64(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The number of bytes up to the end of `input`, and their SHA-256 in hexadecimal.
///
/// # Errors
/// Those of reading.
pub fn checksum(input: &mut impl Read) -> io::Result<(u64, String)> {
    copy(input, &mut io::sink())
}

/// Copies `input` to `output`; the number of bytes and their SHA-256 in hexadecimal.
///
/// # Errors
/// Those of reading and writing.
pub fn copy(input: &mut impl Read, output: &mut impl Write) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        output.write_all(&buffer[..count])?;
        total += count as u64;
    }
    Ok((total, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_same_stream() {
        let mut whole = Vec::new();
        Stream::new(1000).read_to_end(&mut whole).unwrap();
        assert_eq!(whole.len(), 1000);
        let mut stream = Stream::new(1000);
        let mut pieces = Vec::new();
        for size in (1..).take_while(|size| size * (size - 1) / 2 < 1000) {
            let mut piece = vec![0; size];
            let count = stream.read(&mut piece).unwrap();
            pieces.extend_from_slice(&piece[..count]);
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn the_checksum_is_sha256() {
        // FIPS 180-4's example for "abc".
        let (count, sum) = checksum(&mut b"abc".as_slice()).unwrap();
        assert_eq!(count, 3);
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
