//! The rule file: one rule a line, the first that applies decides.
//! ```text
//! # effect  action     who (any of it may be missing)                 topic filter
//! deny      all        peer=10.66.0.0/16                              #
//! allow     publish    tenant=acme  user=alice  client=meter-7        meters/%c/reading
//! allow     subscribe                                                 "public/with space/#"
//! ```
//! Actions are `publish`, `subscribe` (which includes receiving) and `all`. In the filter `%c`, `%u` and `%t` stand for client id,
//! user and tenant. Values with blanks, and empty ones (`user=""` is anonymous), stand in double quotes; inside, `\"` and `\\` are a
//! quote and a backslash. A comment starts with `#` at the start of a line.
//!
//! Rules with `user=` or `client=` are found by that name, so that files with a section per user stay fast.

use crate::auth::LoadError;
use crate::auth::grant::PATTERN_LIMITS;
use crate::auth::source;
use bifro_core::client::ClientInfo;
use bifro_core::plugin::{Action, Effect, Rule};
use bifro_mqtt::topic::check_filter;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

/// Largest file.
const FILE_BYTES_MAX: usize = 16 << 20;

/// Most rules: those without `user=` and `client=` are asked one after the other.
const RULES_MAX: usize = 100_000;

/// One rule of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileRule {
    user: Option<Box<str>>,
    client: Option<Box<str>>,
    tenant: Option<Box<str>>,
    peer: Option<Network>,
    /// What it says about whom it is for.
    pub(super) rule: Rule,
}

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

/// The file in memory: its rules in order, and where to find those that name a client or user.
#[derive(Debug, Default)]
pub(super) struct RuleFile {
    rules: Vec<FileRule>,
    for_all: Vec<usize>,
    by_user: HashMap<Box<str>, Vec<usize>>,
    by_client: HashMap<Box<str>, Vec<usize>>,
}

impl RuleFile {
    /// Loads the file as a whole.
    ///
    /// # Errors
    /// [`LoadError`], with file and line.
    pub(super) fn load(path: &Path) -> Result<Self, LoadError> {
        let mut file = Self::default();
        for (number, line) in source::read_lines(path, FILE_BYTES_MAX)? {
            let rule = parse_rule(&line).map_err(|problem| LoadError::line(path, number, problem))?;
            if file.rules.len() >= RULES_MAX {
                return Err(LoadError::line(
                    path,
                    number,
                    format!("more than {RULES_MAX} rules; use `%c`, `%u` or `%t`"),
                ));
            }
            file.push(rule);
        }
        Ok(file)
    }

    fn push(&mut self, rule: FileRule) {
        let index = self.rules.len();
        match (&rule.client, &rule.user) {
            (Some(client), _) => self.by_client.entry(client.clone()).or_default().push(index),
            (None, Some(user)) => self.by_user.entry(user.clone()).or_default().push(index),
            (None, None) => self.for_all.push(index),
        }
        self.rules.push(rule);
    }

    /// The rules that are for `client`, in their order.
    pub(super) fn rules_for<'a>(&'a self, client: &'a ClientInfo) -> impl Iterator<Item = &'a FileRule> {
        let list = |map: &'a HashMap<Box<str>, Vec<usize>>, name: &str| map.get(name).map_or(&[][..], Vec::as_slice);
        let mut lists =
            [self.for_all.as_slice(), list(&self.by_user, &client.user), list(&self.by_client, &client.client_id)];
        std::iter::from_fn(move || {
            let nearest = lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list[0])?;
            let (first, rest) = nearest.split_first()?;
            *nearest = rest;
            self.rules.get(*first)
        })
        .filter(|rule| rule.is_for(client))
    }
}

impl FileRule {
    fn is_for(&self, client: &ClientInfo) -> bool {
        let names = |wanted: &Option<Box<str>>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        names(&self.user, &client.user)
            && names(&self.client, &client.client_id)
            && names(&self.tenant, &client.tenant)
            && self.peer.is_none_or(|network| client.peer.is_some_and(|peer| network.contains(peer.ip)))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= bits))?;
        Some(Self { address, prefix })
    }

    fn contains(&self, peer: IpAddr) -> bool {
        let differ = match (self.address, peer.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()) ^ u128::from(b.to_bits())) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= self.prefix
    }
}

/// Reads one rule.
///
/// # Errors
/// What is wrong with it, as a sentence.
fn parse_rule(line: &str) -> Result<FileRule, String> {
    let mut words = split_words(line)?.into_iter();
    let effect = match words.next().as_deref() {
        Some("allow") => Effect::Allow,
        Some("deny") => Effect::Deny,
        other => return Err(format!("expected `allow` or `deny`, found {:?}", other.unwrap_or_default())),
    };
    let action = match words.next().as_deref() {
        Some("publish") => Some(Action::Publish),
        Some("subscribe") => Some(Action::Subscribe),
        Some("all") => None,
        other => {
            return Err(format!("expected `publish`, `subscribe` or `all`, found {:?}", other.unwrap_or_default()));
        }
    };
    let Some(pattern) = words.next_back() else { return Err("no topic filter at the end of the line".to_owned()) };
    check_filter(&pattern, &PATTERN_LIMITS).map_err(|error| format!("{pattern:?} is no topic filter ({error})"))?;
    let rule = Rule { effect, action, pattern: pattern.into() };
    let mut parsed = FileRule { user: None, client: None, tenant: None, peer: None, rule };
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!(
                "expected `user=`, `client=`, `tenant=` or `peer=`, found {word:?}; quote topics with blanks"
            ));
        };
        let field = match name {
            "user" => &mut parsed.user,
            "client" => &mut parsed.client,
            "tenant" => &mut parsed.tenant,
            "peer" if parsed.peer.is_some() => return Err("`peer=` appears twice".to_owned()),
            "peer" => {
                let network = Network::parse(value).ok_or_else(|| format!("{value:?} is no address or network"))?;
                parsed.peer = Some(network);
                continue;
            }
            other => return Err(format!("unknown condition {other:?}; there are user, client, tenant and peer")),
        };
        if field.replace(value.into()).is_some() {
            return Err(format!("`{name}=` appears twice"));
        }
    }
    Ok(parsed)
}

/// The words of a line, with quotes resolved.
///
/// # Errors
/// If a quote is not closed, or a backslash in it stands before anything but a quote or backslash.
fn split_words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            Some(escaped @ ('"' | '\\')) => word.push(escaped),
                            _ => return Err("in quotes only `\\\"` and `\\\\` may follow a backslash".to_owned()),
                        },
                        Some(other) => word.push(other),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
            }
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_word_by_word() {
        let parsed = parse_rule(r#"allow  publish user="a \"b\" \\" peer=10.0.0.0/8 "x y/%c""#).expect("well-formed");
        assert_eq!(parsed.user.as_deref(), Some(r#"a "b" \"#));
        assert_eq!(&*parsed.rule.pattern, "x y/%c");
        assert_eq!((parsed.rule.effect, parsed.rule.action), (Effect::Allow, Some(Action::Publish)));
        let network = parsed.peer.expect("a network");
        assert!(network.contains(IpAddr::from([10, 200, 0, 1])));
        assert!(!network.contains(IpAddr::from([11, 0, 0, 1])));
        assert_eq!(parse_rule("deny all user=\"\" #").expect("well-formed").user.as_deref(), Some(""));
    }

    #[test]
    fn networks_compare_by_prefix_in_one_family() {
        let all = Network::parse("0.0.0.0/0").expect("valid");
        assert!(all.contains(IpAddr::from([1, 2, 3, 4])));
        assert!(all.contains("::ffff:1.2.3.4".parse().expect("valid")), "a mapped address is the one it maps");
        assert!(!all.contains("2001:db8::1".parse().expect("valid")));
        let one = Network::parse("::1").expect("valid");
        assert!(one.contains("::1".parse().expect("valid")));
        assert!(!one.contains("::2".parse().expect("valid")));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(Network::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_malformed_line_is_refused_with_a_reason() {
        for wrong in [
            "permit all #",
            "allow",
            "allow everything #",
            "allow all",
            "allow all user #",
            "allow all group=x #",
            "allow all user=a user=b #",
            "allow all peer=10.0.0.0/8 peer=11.0.0.0/8 #",
            "allow all peer=nowhere #",
            "allow all a/#/b",
            "allow all a b",
            "allow all \"open",
            r#"allow all "a\n""#,
        ] {
            assert!(parse_rule(wrong).is_err(), "{wrong:?}");
        }
    }
}
