//! One ordered answer from the layers of a space.

use super::base::{Page, Scan};
use super::overlay::Overlay;

/// Keys looked at for one answer: many deleted ones must not hold a shard. The page is then short, with a rest.
const VISITS_MAX: usize = 8192;

/// Merges a page of the base with the layers above it, nearest first. The page must be the base's answer to `scan`; where it ends
/// before the range does, so does the answer.
pub(super) fn merge(layers: [Option<&Overlay>; 2], base: Page, scan: &Scan) -> Page {
    let to = base.next.as_deref().or(scan.to.as_deref());
    let mut above = layers.map(|layer| layer.into_iter().flat_map(|layer| layer.range(&scan.from, to)).peekable());
    let mut below = base.pairs.into_iter().peekable();
    let (mut page, mut bytes) = (Page { pairs: Vec::new(), next: base.next.clone() }, 0);
    for visits in 0_usize.. {
        let [active, frozen] = &mut above;
        let keys = [active.peek().map(|(key, _)| *key), frozen.peek().map(|(key, _)| *key)];
        let next = keys.into_iter().flatten().chain(below.peek().map(|(key, _)| &**key)).min();
        let Some(key) = next.map(Box::<[u8]>::from) else { return page };
        if visits >= VISITS_MAX
            || page.pairs.len() >= scan.limit.max(1)
            || bytes >= scan.bytes_max && !page.pairs.is_empty()
        {
            page.next = Some(key.into_vec());
            return page;
        }
        let in_active = active.next_if(|(found, _)| **found == *key).map(|(_, value)| value);
        let in_frozen = frozen.next_if(|(found, _)| **found == *key).map(|(_, value)| value);
        let in_base = below.next_if(|(found, _)| *found == key).map(|(_, value)| value);
        let value = match (in_active, in_frozen) {
            (Some(value), _) | (None, Some(value)) => value.map(Box::from),
            (None, None) => in_base,
        };
        if let Some(value) = value {
            bytes += key.len() + value.len();
            page.pairs.push((key, value));
        }
    }
    unreachable!("the loop ends by return")
}
