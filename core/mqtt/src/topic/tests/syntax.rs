//! Syntax and limits of names and filters, and shared filters.

use super::super::name::TOPIC_BYTES_HARD_MAX;
use super::super::*;
use bifro_core::limits::TOPIC_LEVELS_HARD_MAX;
use bifro_core::settings::TenantSettings;

const WIDE: TopicLimits = TopicLimits { bytes_max: 65_535, levels_max: 1_024, level_bytes_max: 65_535 };

fn name(name: &str) -> Result<(), TopicError> {
    check_name(name, &WIDE)
}

fn filter(filter: &str) -> Result<(), TopicError> {
    check_filter(filter, &WIDE)
}

fn parse(full: &str) -> Result<ParsedFilter<'_>, TopicError> {
    ParsedFilter::parse(full, &WIDE)
}

/// [MQTT-4.7.3-1] [MQTT5-4.7.3-1], hostile input 7.
#[test]
fn names_and_filters_have_at_least_one_character() {
    assert_eq!(name(""), Err(TopicError::Empty));
    assert_eq!(filter(""), Err(TopicError::Empty));
    assert_eq!(parse(""), Err(TopicError::Empty));
    for fine in ["/", "//", " ", "a", "/a", "a/", "$SYS/x", "ACCOUNTS", "a b/c d", "ü/文/🦀"] {
        assert_eq!((name(fine), filter(fine)), (Ok(()), Ok(())), "{fine:?}");
    }
}

/// [MQTT-4.7.3-2] [MQTT5-4.7.3-2], hostile input 14.
#[test]
fn names_and_filters_have_no_null_character() {
    for bad in ["\0", "a/\0", "a\0b/c"] {
        assert_eq!((name(bad), filter(bad)), (Err(TopicError::Nul), Err(TopicError::Nul)), "{bad:?}");
    }
    assert_eq!(filter("+/\0"), Err(TopicError::Nul));
    assert_eq!(parse("$share/g\0/a"), Err(TopicError::Nul));
    assert_eq!(parse("$share/g/a\0"), Err(TopicError::Nul));
}

/// [MQTT-4.7.1-1] [MQTT5-4.7.0-1] [MQTT-3.3.2-2] [MQTT5-3.3.2-2]; the same check serves response topics [MQTT5-3.3.2-14];
/// hostile inputs 7 and 20.
#[test]
fn names_have_no_wildcards() {
    for bad in ["+", "#", "a/+", "a/#", "a+", "#a", "a/b+c/d", "+/a"] {
        assert_eq!(name(bad), Err(TopicError::WildcardInName), "{bad:?}");
    }
}

/// [MQTT-4.7.1-2] [MQTT5-4.7.1-1].
#[test]
fn the_multi_level_wildcard_stands_alone_and_last() {
    for fine in ["#", "a/#", "/#", "a/b/#", "+/#"] {
        assert_eq!(filter(fine), Ok(()), "{fine:?}");
    }
    for bad in ["a#", "a/b#", "#a", "a/#b", "##"] {
        assert_eq!(filter(bad), Err(TopicError::WildcardNotAlone), "{bad:?}");
    }
    for bad in ["#/a", "a/#/b", "#/", "#/#", "a/#/+"] {
        assert_eq!(filter(bad), Err(TopicError::HashNotLast), "{bad:?}");
    }
}

/// [MQTT-4.7.1-3] [MQTT5-4.7.1-2].
#[test]
fn the_single_level_wildcard_fills_its_level_anywhere() {
    for fine in ["+", "+/a", "a/+", "a/+/b", "/+", "+/", "+/+", "+/+/#"] {
        assert_eq!(filter(fine), Ok(()), "{fine:?}");
    }
    for bad in ["a+", "+a", "a/b+", "a/+b/c", "++", "+#"] {
        assert_eq!(filter(bad), Err(TopicError::WildcardNotAlone), "{bad:?}");
    }
}

/// [MQTT-4.7.3-3] [MQTT5-4.7.3-3], hostile input 27.
#[test]
fn nothing_is_longer_than_the_wire_and_the_matchers_can_take_whatever_the_settings_say() {
    let settings = TenantSettings {
        topic_bytes_max: u32::MAX,
        topic_levels_max: u32::MAX,
        topic_level_bytes_max: u32::MAX,
        ..TenantSettings::default()
    };
    let limits = TopicLimits::of(&settings);
    assert_eq!(limits, WIDE);
    assert_eq!((limits.bytes_max, limits.levels_max), (TOPIC_BYTES_HARD_MAX, TOPIC_LEVELS_HARD_MAX));
    let longest = "a".repeat(65_535);
    assert_eq!((check_name(&longest, &limits), check_filter(&longest, &limits)), (Ok(()), Ok(())));
    let longer = "a".repeat(65_536);
    let refused = Err(TopicError::TooLong { bytes: 65_536, max: 65_535 });
    assert_eq!((check_name(&longer, &limits), check_filter(&longer, &limits)), (refused, refused));
    let slashes = "/".repeat(65_535);
    let refused = Err(TopicError::TooManyLevels { levels: 65_536, max: 1_024 });
    assert_eq!((check_name(&slashes, &limits), check_filter(&slashes, &limits)), (refused, refused));
}

#[test]
fn each_limit_of_the_tenant_is_told_apart_and_holds_to_the_byte() {
    let settings = TenantSettings {
        topic_bytes_max: 8,
        topic_levels_max: 3,
        topic_level_bytes_max: 4,
        ..TenantSettings::default()
    };
    let limits = TopicLimits::of(&settings);
    for (text, verdict) in [
        ("aaaa/bbb", Ok(())),
        ("a/b/c", Ok(())),
        ("aaaa/bbbb", Err(TopicError::TooLong { bytes: 9, max: 8 })),
        ("a/b/c/", Err(TopicError::TooManyLevels { levels: 4, max: 3 })),
        ("a/bbbbb", Err(TopicError::LevelTooLong { bytes: 5, max: 4 })),
    ] {
        assert_eq!((check_name(text, &limits), check_filter(text, &limits)), (verdict, verdict), "{text}");
        assert!(verdict.is_ok() || verdict.is_err_and(TopicError::is_limit));
    }
    let malformed = check_filter("aaaaa/bbbbb/#/c/d", &limits);
    assert_eq!(malformed, Err(TopicError::HashNotLast), "malformed outweighs too large");
    assert!(!TopicError::HashNotLast.is_limit());
    let parsed = ParsedFilter::parse("$share/abcd/aaaa/bbb", &limits);
    assert!(parsed.is_ok(), "the prefix does not count: {parsed:?}");
    let parsed = ParsedFilter::parse("$share/abcde/a", &limits);
    assert_eq!(parsed, Err(TopicError::LevelTooLong { bytes: 5, max: 4 }));
}

/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2].
#[test]
fn a_shared_filter_comes_apart_into_name_and_filter() {
    for (full, group, filter, has_wildcard) in [
        ("a/b", None, "a/b", false),
        ("$share/g/a", Some(("g", false)), "a", false),
        ("$oshare/g/a", Some(("g", true)), "a", false),
        ("$share/g/+/a/#", Some(("g", false)), "+/a/#", true),
        ("$share/g//", Some(("g", false)), "/", false),
        ("$share/g//a", Some(("g", false)), "/a", false),
        ("$share/$share/$share/g/a", Some(("$share", false)), "$share/g/a", false),
        ("$share/consumer 1/#", Some(("consumer 1", false)), "#", true),
        ("$share", None, "$share", false),
        ("$shared/g/a", None, "$shared/g/a", false),
        ("$SHARE/g/a", None, "$SHARE/g/a", false),
        ("/$share/g/a", None, "/$share/g/a", false),
        ("+/g/a", None, "+/g/a", true),
    ] {
        assert_eq!(parse(full), Ok(ParsedFilter { group, filter, has_wildcard }), "{full}");
    }
}

/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2], hostile input 12.
#[test]
fn malformed_shared_filters_are_refused() {
    for prefix in ["$share", "$oshare"] {
        for (rest, error) in [
            ("/", TopicError::ShareNameEmpty),
            ("//", TopicError::ShareNameEmpty),
            ("//a", TopicError::ShareNameEmpty),
            ("/g", TopicError::ShareFilterMissing),
            ("/g/", TopicError::ShareFilterMissing),
            ("/+/a", TopicError::ShareNameWildcard),
            ("/#", TopicError::ShareNameWildcard),
            ("/#/a", TopicError::ShareNameWildcard),
            ("/g+/a", TopicError::ShareNameWildcard),
            ("/a#b/c", TopicError::ShareNameWildcard),
            ("/g/a+", TopicError::WildcardNotAlone),
            ("/g/#/a", TopicError::HashNotLast),
        ] {
            let full = [prefix, rest].concat();
            assert_eq!(parse(&full), Err(error), "{full}");
            assert!(!error.is_limit());
        }
    }
}

#[test]
fn errors_read_as_sentences_for_logs() {
    use alloc::string::ToString;
    assert_eq!(TopicError::WildcardInName.to_string(), "topic name contains a wildcard");
    assert_eq!(TopicError::TooLong { bytes: 9, max: 8 }.to_string(), "9 bytes, at most 8 are allowed");
}
