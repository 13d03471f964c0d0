//! The names authentication hands on: what a tenant or a user may be called, and how files write both as one login.
//!
//! A login is `user`, or `tenant/user`: it is what a client sends as its user name, and the key of the credential files.

/// Longest tenant name, in bytes: it becomes a metric label and is interned for the life of the process.
const TENANT_BYTES_MAX: usize = 128;

/// Longest user name, in bytes: what MQTT can carry.
const USER_BYTES_MAX: usize = 65_535;

/// A login taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Login<'a> {
    /// Tenant, if the login names one.
    pub(crate) tenant: Option<&'a str>,
    /// User.
    pub(crate) user: &'a str,
}

/// Takes a login apart at its only slash.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(crate) fn parse_login(login: &str) -> Result<Login<'_>, String> {
    let (tenant, user) = match login.split_once('/') {
        Some((tenant, user)) => (Some(tenant), user),
        None => (None, login),
    };
    if let Some(tenant) = tenant {
        check_tenant(tenant)?;
    }
    check_user(user)?;
    if user.contains(['/', ':']) {
        return Err(format!("the user name {user:?} must contain neither '/' nor ':'"));
    }
    Ok(Login { tenant, user })
}

/// Whether `name` can be a tenant's.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(crate) fn check_tenant(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > TENANT_BYTES_MAX {
        return Err(format!("a tenant name has 1 to {TENANT_BYTES_MAX} bytes, this one has {}", name.len()));
    }
    if name.contains(|c: char| c.is_control() || matches!(c, '/' | '+' | '#' | ':' | '$')) {
        return Err(format!("the tenant name {name:?} must contain no '/', '+', '#', ':', '$' or control character"));
    }
    Ok(())
}

/// Whether `name` can be a user's. Wildcards are permitted: access rules never let them substitute anything.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(crate) fn check_user(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > USER_BYTES_MAX {
        return Err(format!("a user name has 1 to {USER_BYTES_MAX} bytes, this one has {}", name.len()));
    }
    if name.contains(char::is_control) {
        return Err(format!("the user name {name:?} must contain no control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_a_user_or_a_tenant_and_a_user() {
        assert_eq!(parse_login("alice"), Ok(Login { tenant: None, user: "alice" }));
        assert_eq!(parse_login("acme/alice"), Ok(Login { tenant: Some("acme"), user: "alice" }));
        assert_eq!(parse_login("a+b@example.org"), Ok(Login { tenant: None, user: "a+b@example.org" }));
    }

    #[test]
    fn a_login_that_could_be_read_in_two_ways_is_refused() {
        for login in ["", "/alice", "acme/", "a/b/c", "a:b", "al\nice", "+/alice", "#/alice", "$x/alice"] {
            assert!(parse_login(login).is_err(), "{login:?}");
        }
        assert!(check_tenant(&"t".repeat(129)).is_err());
    }
}
