//! What a base must do, as code: run against every implementation.

use super::base::{Commit, KvBase, Pair, Scan, SpaceId, SpaceState};
use super::error::KvError;
use std::collections::BTreeMap;

const SPACE: SpaceId = SpaceId(7);
const OTHER: SpaceId = SpaceId(8);

/// Changes as a test writes them: keys ascending, `None` deletes.
pub type Changes<'a> = &'a [(&'a str, Option<&'a str>)];

/// Commits changes to a space.
///
/// # Errors
/// What the base says.
pub fn commit(base: &dyn KvBase, space: SpaceId, changes: Changes<'_>, applied: u64) -> Result<(), KvError> {
    let changes = Box::new(changes.iter().map(|(key, value)| (key.as_bytes(), value.map(str::as_bytes))));
    base.commit(space, Commit { changes, bytes: 0, applied, meta: &applied.to_le_bytes() })
}

/// Every pair of a space, read in pages of `limit`.
///
/// # Errors
/// What the base says.
pub fn everything(base: &dyn KvBase, space: SpaceId, limit: usize) -> Result<BTreeMap<String, String>, KvError> {
    let mut all = BTreeMap::new();
    let mut scan = Scan { from: Vec::new(), to: None, limit, bytes_max: usize::MAX };
    loop {
        let page = base.scan(space, &scan)?;
        all.extend(page.pairs.iter().map(texts));
        match page.next {
            Some(next) => scan.from = next,
            None => return Ok(all),
        }
    }
}

fn texts((key, value): &Pair) -> (String, String) {
    (String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned())
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// All of it. `reopen` gives the base as the next process finds it.
///
/// # Panics
/// If the base does not keep a promise.
pub fn check(mut base: Box<dyn KvBase>, mut reopen: impl FnMut(Box<dyn KvBase>) -> Box<dyn KvBase>) {
    an_unknown_space_is_empty(&*base);
    commits_replace_and_delete(&*base);
    pages_end_where_they_say(&*base);
    views_stay_as_they_are(&*base);
    base = reopen(base);
    what_was_committed_is_there(&*base);
    an_install_counts_only_when_finished(&*base);
    base = reopen(base);
    assert_eq!(everything(&*base, SPACE, 2).expect("read"), map(&[("new", "1")]), "the installed snapshot");
    base.drop_space(SPACE).expect("dropped");
    base.drop_space(SPACE).expect("there is nothing, which is fine");
    base = reopen(base);
    let spaces = base.spaces().expect("read");
    assert_eq!(spaces.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [OTHER], "the other space stays");
    assert!(matches!(base.view(SPACE), Err(KvError::NoSuchSpace(SPACE))));
}

fn an_unknown_space_is_empty(base: &dyn KvBase) {
    assert_eq!(base.state(SPACE).expect("read"), SpaceState::default());
    assert_eq!(base.get(SPACE, b"a").expect("read"), None);
    assert!(everything(base, SPACE, 1).expect("read").is_empty());
    assert!(matches!(base.view(SPACE), Err(KvError::NoSuchSpace(SPACE))));
}

fn commits_replace_and_delete(base: &dyn KvBase) {
    commit(base, SPACE, &[], 1).expect("committed");
    assert!(!base.state(SPACE).expect("read").is_inhabited, "nothing was put");
    commit(base, SPACE, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))], 5).expect("committed");
    commit(base, SPACE, &[("a", None), ("b", Some("2")), ("x", None)], 9).expect("committed");
    commit(base, OTHER, &[("b", Some("elsewhere"))], 3).expect("committed");
    let state = base.state(SPACE).expect("read");
    assert_eq!((state.applied, state.meta, state.is_inhabited), (9, 9_u64.to_le_bytes().to_vec(), true));
    assert_eq!(everything(base, SPACE, 1).expect("read"), map(&[("b", "2"), ("c", "1")]));
    assert_eq!(base.get(SPACE, b"a").expect("read"), None);
    assert_eq!(base.get(OTHER, b"b").expect("read").as_deref(), Some(&b"elsewhere"[..]));
}

fn pages_end_where_they_say(base: &dyn KvBase) {
    let page = |from: &str, to: Option<&str>, limit, bytes_max| {
        let scan = Scan { from: from.into(), to: to.map(Into::into), limit, bytes_max };
        let page = base.scan(SPACE, &scan).expect("read");
        (page.pairs.iter().map(|pair| texts(pair).0).collect::<Vec<_>>().concat(), page.next.is_some())
    };
    assert_eq!(page("", None, 9, usize::MAX), ("bc".to_owned(), false));
    assert_eq!(page("", None, 1, usize::MAX), ("b".to_owned(), true));
    assert_eq!(page("", None, 9, 1), ("b".to_owned(), true), "the pair that reaches the bytes is included");
    assert_eq!(page("b", Some("c"), 9, usize::MAX).0, "b", "the end is excluded");
    assert_eq!(page("c", Some("b"), 9, usize::MAX), (String::new(), false));
}

fn views_stay_as_they_are(base: &dyn KvBase) {
    let view = base.view(SPACE).expect("there");
    commit(base, SPACE, &[("b", None), ("d", Some("1"))], 11).expect("committed");
    let page = view.scan(&Scan { from: Vec::new(), to: None, limit: 9, bytes_max: usize::MAX }).expect("read");
    assert_eq!(page.pairs.iter().map(texts).collect::<BTreeMap<_, _>>(), map(&[("b", "2"), ("c", "1")]));
    assert_eq!(view.state().applied, 9);
}

fn what_was_committed_is_there(base: &dyn KvBase) {
    assert_eq!(base.state(SPACE).expect("read").applied, 11);
    assert_eq!(everything(base, SPACE, 9).expect("read"), map(&[("c", "1"), ("d", "1")]));
}

fn an_install_counts_only_when_finished(base: &dyn KvBase) {
    let pair = |key: &str, value: &str| -> Pair { (key.as_bytes().into(), value.as_bytes().into()) };
    let mut given_up = base.install(SPACE).expect("begun");
    given_up.add(&[pair("half", "1")]).expect("added");
    drop(given_up);
    assert_eq!(everything(base, SPACE, 9).expect("read"), map(&[("c", "1"), ("d", "1")]), "the old data stays");
    let old = base.view(SPACE).expect("there");
    let mut install = base.install(SPACE).expect("begun");
    install.add(&[pair("new", "0"), pair("new", "1")]).expect("added");
    install.finish(20, b"meta").expect("finished");
    let state = base.state(SPACE).expect("read");
    assert_eq!((state.applied, &*state.meta, state.is_inhabited), (20, &b"meta"[..], true));
    let page = old.scan(&Scan { from: Vec::new(), to: None, limit: 9, bytes_max: usize::MAX }).expect("read");
    assert_eq!(page.pairs.len(), 2, "views of the old data stay good");
}
