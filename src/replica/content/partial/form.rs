//! What the file of a map looks like.

use super::PartOf;
use crate::replica::blocks::BlockMap;

const MAGIC: &[u8; 4] = b"RHP1";
/// The bits come behind so many bytes.
pub(super) const HEADER: usize = 32;

pub(super) fn encode(of: &PartOf, block: u32, map: &BlockMap) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(block.to_le_bytes());
    bytes.extend(of.seq.to_le_bytes());
    bytes.extend(of.size.to_le_bytes());
    bytes.extend(of.mtime.to_le_bytes());
    bytes.extend(map.bits());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Option<(PartOf, BlockMap)> {
    let (header, bits) = bytes.split_at_checked(HEADER)?;
    let rest = header.strip_prefix(MAGIC)?;
    let (block, rest) = rest.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (mtime, _) = rest.split_first_chunk::<8>()?;
    let of = PartOf {
        seq: u64::from_le_bytes(*seq),
        size: u64::from_le_bytes(*size),
        mtime: i64::from_le_bytes(*mtime),
    };
    // What is claimed must not take more memory than is there.
    let block = u32::from_le_bytes(*block);
    let wanted = of.size.checked_div(block.into())?.div_ceil(8);
    if wanted > bits.len() as u64 {
        return None;
    }
    Some((of, BlockMap::of_bits(of.size, block, bits)?))
}
