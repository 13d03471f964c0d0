//! Topic names: syntax, the tenant's limits, and the one error type of names and filters.
//!
//! A string that is both malformed and over a limit is reported as malformed, because that is the graver fault of a client.

use bifro_core::limits::TOPIC_LEVELS_HARD_MAX;
use bifro_core::settings::TenantSettings;
use core::fmt;

/// Longest topic name or filter there can be, in bytes: its length has two bytes [MQTT-4.7.3-3] [MQTT5-4.7.3-3].
pub const TOPIC_BYTES_HARD_MAX: usize = 65_535;

/// How large a tenant's topic names and filters may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// Longest name or filter, in bytes.
    pub bytes_max: usize,
    /// Most levels; separators plus one.
    pub levels_max: usize,
    /// Longest single level, in bytes.
    pub level_bytes_max: usize,
}

impl TopicLimits {
    /// The limits of a tenant, lowered to what the protocol and the matchers can take.
    pub fn of(settings: &TenantSettings) -> Self {
        let bytes = |value: u32| usize::try_from(value).map_or(TOPIC_BYTES_HARD_MAX, |v| v.min(TOPIC_BYTES_HARD_MAX));
        let levels = usize::try_from(settings.topic_levels_max).unwrap_or(TOPIC_LEVELS_HARD_MAX);
        Self {
            bytes_max: bytes(settings.topic_bytes_max),
            levels_max: levels.min(TOPIC_LEVELS_HARD_MAX),
            level_bytes_max: bytes(settings.topic_level_bytes_max),
        }
    }

    /// # Errors
    /// The first limit that a string of this shape exceeds.
    pub(super) fn admit(&self, bytes: usize, shape: Shape) -> Result<(), TopicError> {
        if bytes > self.bytes_max {
            Err(TopicError::TooLong { bytes, max: self.bytes_max })
        } else if shape.levels > self.levels_max {
            Err(TopicError::TooManyLevels { levels: shape.levels, max: self.levels_max })
        } else if shape.longest > self.level_bytes_max {
            Err(TopicError::LevelTooLong { bytes: shape.longest, max: self.level_bytes_max })
        } else {
            Ok(())
        }
    }
}

/// Why a topic name or filter is refused. [`TopicError::is_limit`] tells the tenant's limits from the standard's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// No character at all [MQTT-4.7.3-1] [MQTT5-4.7.3-1].
    Empty,
    /// Contains U+0000 [MQTT-4.7.3-2] [MQTT5-4.7.3-2].
    Nul,
    /// A topic name with `+` or `#` [MQTT-4.7.1-1] [MQTT5-4.7.0-1].
    WildcardInName,
    /// `+` or `#` beside other characters of its level [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2].
    WildcardNotAlone,
    /// `#` before the last level [MQTT-4.7.1-2] [MQTT5-4.7.1-1].
    HashNotLast,
    /// `$share//filter`: the share name is missing [MQTT5-4.8.2-1].
    ShareNameEmpty,
    /// The share name contains `+` or `#` [MQTT5-4.8.2-2].
    ShareNameWildcard,
    /// `$share/name` or `$share/name/`: the filter is missing [MQTT5-4.8.2-2].
    ShareFilterMissing,
    /// More bytes than the tenant may use.
    TooLong {
        /// Length in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More levels than the tenant may use.
    TooManyLevels {
        /// Number of levels.
        levels: usize,
        /// The limit.
        max: usize,
    },
    /// A level of more bytes than the tenant may use.
    LevelTooLong {
        /// Length of the longest level, in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl TopicError {
    /// A limit of the tenant is exceeded; otherwise the string is malformed by the standard.
    pub const fn is_limit(self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::TooManyLevels { .. } | Self::LevelTooLong { .. })
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Nul => f.write_str("contains U+0000"),
            Self::WildcardInName => f.write_str("topic name contains a wildcard"),
            Self::WildcardNotAlone => f.write_str("wildcard does not fill its level"),
            Self::HashNotLast => f.write_str("# is not the last level"),
            Self::ShareNameEmpty => f.write_str("share name is empty"),
            Self::ShareNameWildcard => f.write_str("share name contains a wildcard"),
            Self::ShareFilterMissing => f.write_str("share name without a filter"),
            Self::TooLong { bytes, max } => write!(f, "{bytes} bytes, at most {max} are allowed"),
            Self::TooManyLevels { levels, max } => write!(f, "{levels} levels, at most {max} are allowed"),
            Self::LevelTooLong { bytes, max } => write!(f, "a level of {bytes} bytes, at most {max} are allowed"),
        }
    }
}

impl core::error::Error for TopicError {}

/// What the limits are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Number of levels.
    pub(super) levels: usize,
    /// Bytes of the longest level.
    pub(super) longest: usize,
}

impl Shape {
    /// Counts one more level.
    pub(super) fn add(&mut self, bytes: usize) {
        self.levels += 1;
        self.longest = self.longest.max(bytes);
    }
}

/// Checks a topic name as it stands in a PUBLISH, a will or a response topic. Names that begin with `$` are well-formed;
/// who may publish to them is a question of permission.
///
/// # Errors
/// The first rule broken, or the first limit exceeded if no rule is.
pub fn check_name(name: &str, limits: &TopicLimits) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty); // [MQTT-4.7.3-1] [MQTT5-4.7.3-1]
    }
    let (mut shape, mut level) = (Shape::default(), 0);
    for byte in name.bytes() {
        match byte {
            0 => return Err(TopicError::Nul), // [MQTT-4.7.3-2] [MQTT5-4.7.3-2]
            // [MQTT-4.7.1-1] [MQTT5-4.7.0-1] [MQTT-3.3.2-2] [MQTT5-3.3.2-2] [MQTT5-3.3.2-14]
            b'+' | b'#' => return Err(TopicError::WildcardInName),
            b'/' => {
                shape.add(level);
                level = 0;
            }
            _ => level += 1,
        }
    }
    shape.add(level);
    limits.admit(name.len(), shape)
}
