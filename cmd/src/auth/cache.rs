//! A bounded memory of answers, for credentials that come again and again.
//!
//! Keys are keyed hashes under a random key of the process, so that neither the map's layout nor a core dump tells a
//! password. At the limit the older half is forgotten as a whole: both operations are O(1), and no entry needs a timer.

use super::error::LoadError;
use bifro_core::time::Instant;
use ring::hmac;
use ring::rand::SystemRandom;
use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The keyed hash of what an answer was given to.
pub(super) type CacheKey = [u8; 32];

/// Answers by [`CacheKey`].
pub(super) struct AnswerCache<V> {
    key: hmac::Key,
    generations: Mutex<Generations<V>>,
    generation_max: usize,
}

struct Generations<V> {
    young: HashMap<CacheKey, (Instant, V)>,
    old: HashMap<CacheKey, (Instant, V)>,
}

impl<V: Clone> AnswerCache<V> {
    /// An empty cache of `entries_max` answers at most.
    ///
    /// # Errors
    /// [`LoadError::Random`].
    pub(super) fn new(entries_max: u32) -> Result<Self, LoadError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| LoadError::Random)?;
        let generations = Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() });
        Ok(Self { key, generations, generation_max: (entries_max as usize).div_ceil(2) })
    }

    /// The key for these fields; fields are told apart, an absent one differs from an empty one.
    pub(super) fn key(&self, fields: &[Option<&[u8]>]) -> CacheKey {
        let mut context = hmac::Context::with_key(&self.key);
        for field in fields {
            let length = field.map_or(u64::MAX, |bytes| bytes.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(field.unwrap_or_default());
        }
        let mut key = CacheKey::default();
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    /// The answer given for `key`, if it is still good at `now`.
    pub(super) fn answer(&self, key: &CacheKey, now: Instant) -> Option<V> {
        let generations = self.lock();
        let (until, value) = generations.young.get(key).or_else(|| generations.old.get(key))?;
        (now < *until).then(|| value.clone())
    }

    /// Remembers an answer for `ttl`; zero remembers nothing.
    pub(super) fn remember(&self, key: CacheKey, value: V, ttl: Duration, now: Instant) {
        if ttl.is_zero() {
            return;
        }
        let mut generations = self.lock();
        if generations.young.len() >= self.generation_max {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(key, (now + ttl, value));
    }

    fn lock(&self) -> MutexGuard<'_, Generations<V>> {
        // Every critical section leaves the maps whole, so a panic elsewhere in it has spoiled nothing.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> fmt::Debug for AnswerCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerCache").field("generation_max", &self.generation_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn an_answer_is_forgotten_after_its_time() {
        let cache = AnswerCache::new(8).expect("randomness");
        let key = cache.key(&[Some(b"alice"), Some(b"secret")]);
        let start = Instant::from_micros(1_000_000);
        cache.remember(key, 7, TTL, start);
        assert_eq!(cache.answer(&key, start), Some(7));
        assert_eq!(cache.answer(&key, start + TTL), None);
        cache.remember(key, 8, Duration::ZERO, start + TTL);
        assert_eq!(cache.answer(&key, start + TTL), None);
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let cache = AnswerCache::<()>::new(8).expect("randomness");
        assert_ne!(cache.key(&[Some(b"ab"), Some(b"c")]), cache.key(&[Some(b"a"), Some(b"bc")]));
        assert_ne!(cache.key(&[Some(b""), None]), cache.key(&[None, Some(b"")]));
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let cache = AnswerCache::new(100).expect("randomness");
        let now = Instant::from_micros(0);
        for n in 0..10_000_u32 {
            cache.remember(cache.key(&[Some(&n.to_be_bytes())]), n, TTL, now);
        }
        let generations = cache.lock();
        assert!(generations.young.len() + generations.old.len() <= 100);
        drop(generations);
        let last = cache.key(&[Some(&9_999_u32.to_be_bytes())]);
        assert_eq!(cache.answer(&last, now), Some(9_999));
    }
}
