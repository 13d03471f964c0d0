//! Access rules: who may publish and subscribe where. Answers from memory, on shards, without blocking and, but for topics longer
//! than a few hundred bytes, without allocating.
//!
//! A client's own rules (from its token or the HTTP service) are asked first, then the file's; the first rule that applies decides.
//! If there are rules but none applies, the answer is no; without any rule and without a file, it is yes.
//!
//! **Subscriptions.** A rule applies to a filter that its pattern covers as a whole. A deny that merely overlaps it makes the answer
//! [`Verdict::Partly`]: each delivery is then asked about by its topic name. An allow that merely overlaps does nothing.
//!
//! **Fail closed.** An allow is read by the protocol's rules: a leading wildcard does not reach topics that start with `$`. A deny
//! is read literally: `#` is everything. A name that cannot safely stand in a pattern makes an allow void and a deny wider, see
//! `pattern`.

mod file;
mod pattern;
#[cfg(test)]
mod tests;

use self::file::{FileRule, RuleFile};
use self::pattern::{Relation, relation};
use crate::auth::LoadError;
use bifro_core::client::ClientInfo;
use bifro_core::plugin::{Action, Authorizer, Effect, Rule, Verdict};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `[acl]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclConfig {
    /// The file with access rules; at most 16 MiB and 100,000 rules. Default: none, clients without rules of their own may
    /// do everything. A file without rules denies everything.
    pub file: Option<PathBuf>,
}

impl AclConfig {
    /// Makes a relative path relative to `base`, the directory of the configuration file.
    pub fn resolve_paths(&mut self, base: &Path) {
        if let Some(path) = &mut self.file {
            *path = base.join(&*path);
        }
    }
}

/// Access rules as one load of the file gives them; immutable, so that shards share it without a lock. A reload makes a new one.
#[derive(Debug, Default)]
pub struct AclAuthorizer {
    file: Option<RuleFile>,
}

impl AclAuthorizer {
    /// Loads the file, if there is one.
    ///
    /// # Errors
    /// [`LoadError`], with file and line; the caller keeps the authorizer it has, or does not start.
    pub fn load(config: &AclConfig) -> Result<Self, LoadError> {
        Ok(Self { file: config.file.as_deref().map(RuleFile::load).transpose()? })
    }

    /// Reads a file only to see whether it could be used.
    ///
    /// # Errors
    /// [`LoadError`], with file and line.
    pub fn check_file(path: &Path) -> Result<(), LoadError> {
        RuleFile::load(path).map(drop)
    }
}

impl Authorizer for AclAuthorizer {
    fn check(&self, client: &ClientInfo, action: Action, topic: &str) -> Verdict {
        let mut question = Question { client, action, topic, partly: false };
        for rule in &client.rules {
            if let Some(verdict) = question.put_to(rule) {
                return verdict;
            }
        }
        let Some(file) = &self.file else {
            return if client.rules.is_empty() { Verdict::Allowed } else { Verdict::Denied };
        };
        for FileRule { rule, .. } in file.rules_for(client) {
            if let Some(verdict) = question.put_to(rule) {
                return verdict;
            }
        }
        Verdict::Denied
    }
}

/// A permission question on its way through the rules.
struct Question<'a> {
    client: &'a ClientInfo,
    action: Action,
    topic: &'a str,
    /// A deny overlapped the filter.
    partly: bool,
}

impl Question<'_> {
    /// The verdict, if `rule` decides.
    fn put_to(&mut self, rule: &Rule) -> Option<Verdict> {
        if rule.action.is_some_and(|action| action != self.action) {
            return None;
        }
        match (relation(rule, self.client, self.topic), rule.effect) {
            (Relation::Covers, Effect::Deny) => Some(Verdict::Denied),
            (Relation::Covers, Effect::Allow) if self.partly => Some(Verdict::Partly),
            (Relation::Covers, Effect::Allow) => Some(Verdict::Allowed),
            (Relation::Overlaps, Effect::Deny) => {
                self.partly = true;
                None
            }
            (Relation::Overlaps, Effect::Allow) | (Relation::Apart, _) => None,
        }
    }
}
