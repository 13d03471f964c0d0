//! What one key's range cannot say: keys that need, exclude or contradict each other.
//!
//! A key that would do nothing is an error too: an operator who sets it expects something to happen.

use super::document::Document;
use super::error::ConfigError;
use crate::auth::AuthConfig;
use bifro_core::config::{AuthMethod, ClientAuth, ClusterConfig, ListenerConfig, NodeConfig, Protocol, TenantConfig};
use bifro_core::event::EventKind;
use std::collections::HashMap;
use std::net::SocketAddr;

/// The least a shard can work with.
const MEMORY_BUDGET_MIB_MIN: u64 = 64;

/// Longest path of a Unix-domain socket that fits `sockaddr_un`, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Collects mistakes under their keys.
struct Report<'d, 't> {
    document: &'d Document<'t>,
    errors: Vec<ConfigError>,
}

impl Report<'_, '_> {
    fn refuse(&mut self, when: bool, path: &str, problem: impl Into<String>) {
        if when {
            self.errors.push(self.document.error(path, problem));
        }
    }
}

/// Every broken rule of `config` and `auth`, which were read from `document`.
pub(super) fn check(document: &Document<'_>, config: &NodeConfig, auth: &AuthConfig) -> Vec<ConfigError> {
    let mut report = Report { document, errors: Vec::new() };
    check_process(&mut report, config);
    if let Some(cluster) = &config.cluster {
        check_cluster(&mut report, cluster);
    }
    let needs_listener = config.roles.mqtt && config.listener.is_empty();
    report.refuse(needs_listener, "listener", "at least one listener is needed, unless roles.mqtt is false");
    for (index, listener) in config.listener.iter().enumerate() {
        let at = format!("listener[{index}]");
        check_place(&mut report, &at, listener);
        check_auth(&mut report, &at, listener, auth);
        check_proxy(&mut report, &at, listener);
        check_tls(&mut report, &at, listener);
    }
    check_addresses(&mut report, config);
    check_tenant(&mut report, "tenant_defaults", &config.tenant_defaults);
    for (name, tenant) in &config.tenant {
        check_tenant(&mut report, &format!("tenant.{name}"), tenant);
    }
    report.errors
}

fn check_process(report: &mut Report<'_, '_>, config: &NodeConfig) {
    let budget = config.node.memory_budget_mib;
    report.refuse(
        (1..MEMORY_BUDGET_MIB_MIN).contains(&budget),
        "node.memory_budget_mib",
        format!("{budget} is too little: allowed is 0 (60 % of the memory) or at least {MEMORY_BUDGET_MIB_MIN}"),
    );
    report.refuse(config.node.data_dir.is_empty(), "node.data_dir", "must not be empty");
    let buffers = config.limits.ring_buffers;
    report.refuse(!buffers.is_power_of_two(), "limits.ring_buffers", format!("{buffers} is not a power of two"));
    for kind in config.log.events.keys() {
        let known = EventKind::ALL.iter().any(|known| known.name() == kind);
        report.refuse(!known, &format!("log.events.{kind}"), "there is no such kind of event");
    }
}

fn check_cluster(report: &mut Report<'_, '_>, cluster: &ClusterConfig) {
    let reachable = !cluster.bind.ip().is_loopback();
    report.refuse(
        reachable && cluster.secret_file.is_none() && cluster.tls.is_none(),
        "cluster.bind",
        "other machines can reach it, so it needs cluster.secret_file, [cluster.tls] or both: whoever knows the secret, or has a \
         certificate of the CA, is a node",
    );
    let unspecified = cluster.bind.ip().is_unspecified();
    report.refuse(
        unspecified && cluster.advertise.is_none(),
        "cluster.advertise",
        format!("missing: others cannot be told {} as the address of this node", cluster.bind),
    );
    if let Some(advertise) = cluster.advertise.filter(|address| address.ip().is_unspecified() || address.port() == 0) {
        report.refuse(true, "cluster.advertise", format!("nobody can reach {advertise}"));
    }
    let is_place = |seed: &str| {
        let Some((host, port)) = seed.rsplit_once(':') else { return false };
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if let Some(seed) = cluster.seeds.iter().find(|seed| !is_place(seed)) {
        report.refuse(true, "cluster.seeds", format!("{seed:?} is not of the form \"host:port\""));
    }
}

/// Where the listener is: address or path, and what belongs to either.
fn check_place(report: &mut Report<'_, '_>, at: &str, listener: &ListenerConfig) {
    let unset = ListenerConfig::new(listener.protocol);
    if listener.protocol == Protocol::Unix {
        report.refuse(listener.bind.is_some(), &format!("{at}.bind"), "a unix listener has a path, not an address");
        let length = listener.path.as_ref().map_or(0, String::len);
        report.refuse(
            !(1..=SOCKET_PATH_BYTES_MAX).contains(&length),
            &format!("{at}.path"),
            format!("a unix listener needs a path of 1 to {SOCKET_PATH_BYTES_MAX} bytes, this one has {length}"),
        );
        let per_ip = listener.connections_per_ip_max != 0;
        report.refuse(per_ip, &format!("{at}.connections_per_ip_max"), "clients of a unix listener have no address");
    } else {
        report.refuse(listener.bind.is_none(), &format!("{at}.bind"), "missing: this protocol needs an address");
        report.refuse(listener.path.is_some(), &format!("{at}.path"), "only a unix listener has a socket path");
        report.refuse(listener.mode != unset.mode, &format!("{at}.mode"), "only a unix listener has permission bits");
    }
    if listener.protocol.is_websocket() {
        let path = &listener.ws_path;
        let well_formed = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        report.refuse(!well_formed, &format!("{at}.ws_path"), format!("{path:?} is no absolute URL path"));
    } else {
        report.refuse(listener.ws_path != unset.ws_path, &format!("{at}.ws_path"), "only ws and wss have a path");
        let trusts = !listener.trust_forwarded_for.is_empty();
        report.refuse(trusts, &format!("{at}.trust_forwarded_for"), "only ws and wss have HTTP headers");
    }
}

fn check_auth(report: &mut Report<'_, '_>, at: &str, listener: &ListenerConfig, auth: &AuthConfig) {
    let key = format!("{at}.auth");
    report.refuse(
        listener.auth.is_empty(),
        &key,
        "missing: a listener that other machines can reach must say how clients authenticate, such as [\"password_file\"]",
    );
    let twice = listener.auth.iter().enumerate().any(|(i, method)| listener.auth[..i].contains(method));
    report.refuse(twice, &key, "a method is named twice");
    let missing = listener.auth.iter().find_map(|method| match method {
        AuthMethod::PasswordFile if auth.password_file.is_none() => Some("password_file"),
        AuthMethod::Scram if auth.scram.is_none() => Some("scram"),
        AuthMethod::Jwt if auth.jwt.is_none() => Some("jwt"),
        AuthMethod::Http if auth.http.is_none() => Some("http"),
        AuthMethod::Certificate if auth.certificate.is_none() => Some("certificate"),
        _ => None,
    });
    if let Some(name) = missing {
        report.refuse(true, &key, format!("names \"{name}\", but there is no [auth.{name}]"));
    }
    let verified = listener.tls.as_ref().is_some_and(|tls| tls.client_auth != ClientAuth::Off);
    report.refuse(
        listener.auth.contains(&AuthMethod::Certificate) && !verified,
        &key,
        "\"certificate\" needs tls.client_ca and tls.client_auth = \"optional\" or \"required\"",
    );
}

fn check_proxy(report: &mut Report<'_, '_>, at: &str, listener: &ListenerConfig) {
    let key = format!("{at}.proxy_trusted");
    let (on, trusted) = (listener.proxy_protocol, !listener.proxy_trusted.is_empty());
    report.refuse(trusted && !on, &key, "does nothing without proxy_protocol = true");
    report.refuse(on && !trusted, &key, "missing: proxy_protocol = true needs the networks of the proxies");
    let local = listener.protocol == Protocol::Unix;
    report.refuse(on && local, &format!("{at}.proxy_protocol"), "a unix listener has no proxies before it");
}

fn check_tls(report: &mut Report<'_, '_>, at: &str, listener: &ListenerConfig) {
    let key = format!("{at}.tls");
    let needed = listener.protocol.is_tls();
    report.refuse(needed && listener.tls.is_none(), &key, "missing: this protocol needs certificate and key");
    report.refuse(!needed && listener.tls.is_some(), &key, "only tls and wss listeners have certificates");
    let Some(tls) = &listener.tls else { return };
    let asked = tls.client_auth != ClientAuth::Off;
    let ca = format!("{key}.client_ca");
    report.refuse(asked && tls.client_ca.is_none(), &ca, "missing: client_auth needs the CA to verify with");
    report.refuse(!asked && tls.client_ca.is_some(), &ca, "does nothing while client_auth = \"off\"");
}

/// No two sockets on one address. Port 0 is another one each time.
fn check_addresses(report: &mut Report<'_, '_>, config: &NodeConfig) {
    let mut taken: HashMap<SocketAddr, String> = HashMap::new();
    let listeners = config.listener.iter().enumerate();
    let binds = listeners.filter_map(|(index, l)| Some((format!("listener[{index}].bind"), l.bind?)));
    for (key, bind) in binds.chain(config.admin.bind.map(|bind| ("admin.bind".to_owned(), bind))) {
        if bind.port() == 0 {
            continue;
        }
        match taken.get(&bind) {
            Some(first) => report.refuse(true, &key, format!("{bind} is the address of {first} already")),
            None => drop(taken.insert(bind, key)),
        }
    }
}

fn check_tenant(report: &mut Report<'_, '_>, at: &str, tenant: &TenantConfig) {
    let (low, high) = (tenant.settings.session_expiry_min_s, tenant.settings.session_expiry_max_s);
    report.refuse(
        low > high,
        &format!("{at}.session_expiry_min_s"),
        format!("{low} is above session_expiry_max_s = {high}"),
    );
}
