//! The reference file against the code, and mistakes against the messages they must cause.

use super::*;
use bifro_core::config::{
    ClientAuth, ClusterConfig, ClusterTlsConfig, ListenerConfig, Protocol, SniCertificate, TlsConfig,
};
use bifro_core::roles::Roles;
use std::collections::BTreeSet;
use std::net::SocketAddr;

fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    Loaded::parse(text, Source::Defaults)
}

fn parse(text: &str) -> Result<NodeConfig, ConfigErrors> {
    load(text).map(|loaded| loaded.config)
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("this configuration has a mistake").to_string()
}

#[track_caller]
fn assert_refused(text: &str, expected: &str) {
    let told = refusal(text);
    assert!(told.contains(expected), "told:     {told}\nexpected: {expected}\nfor:      {text}");
}

/// The reference with every optional key put in force.
fn uncommented_reference() -> String {
    let optional = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
            .map(str::to_owned)
    };
    REFERENCE.lines().map(|line| optional(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// Keys without array indexes and tenants' names.
fn key_set(loaded: &Loaded) -> BTreeSet<String> {
    let text = loaded.to_toml();
    let document = Document::parse("printed", &text).expect("what is printed parses");
    document.entries().iter().map(|entry| entry.pattern.clone()).collect()
}

fn defaults() -> Loaded {
    Loaded {
        config: NodeConfig::default(),
        auth: AuthConfig::default(),
        acl: AclConfig::default(),
        source: Source::Defaults,
        cores_flag: None,
        volatile_flag: false,
    }
}

fn every_cluster_key() -> ClusterConfig {
    let cluster = ClusterConfig::default();
    let tls = ClusterTlsConfig { ca: String::new(), certificate: String::new(), key: String::new() };
    ClusterConfig { advertise: Some(cluster.bind), secret_file: Some(String::new()), tls: Some(tls), ..cluster }
}

/// A configuration with every key there is, in order or not.
fn everything() -> Loaded {
    let mut all = defaults();
    let tls = TlsConfig {
        certificate: String::new(),
        key: String::new(),
        client_ca: Some(String::new()),
        client_auth: ClientAuth::Required,
        min_version: Default::default(),
        sni: vec![SniCertificate { certificate: String::new(), key: String::new() }],
    };
    let unix = ListenerConfig::new(Protocol::Unix);
    all.config.listener.push(ListenerConfig { path: Some(String::new()), tls: Some(tls), ..unix });
    all.acl.file = Some(PathBuf::new());
    all.config.cluster = Some(every_cluster_key());
    // The providers' sections are spelt out by what they print once required and optional keys are given.
    let optional = load(&uncommented_reference()).expect("the optional keys are in order");
    all.auth = optional.auth;
    let jwt = all.auth.jwt.as_mut().expect("the reference shows [auth.jwt]");
    for file in [&mut jwt.secret_file, &mut jwt.public_key_file, &mut jwt.jwks_file] {
        *file = Some(PathBuf::new());
    }
    let certificate = all.auth.certificate.as_mut().expect("the reference shows [auth.certificate]");
    certificate.tenant_from = Some(crate::auth::config::TenantField::Organization);
    all
}

#[test]
fn the_reference_is_the_default() {
    assert_eq!(load(REFERENCE).expect("the reference is in order"), defaults());
}

#[test]
fn the_reference_names_every_key() {
    let text = uncommented_reference();
    let document = Document::parse("reference", &text).expect("it is in order");
    let named: BTreeSet<String> = document.entries().iter().map(|entry| entry.pattern.clone()).collect();
    for key in key_set(&everything()) {
        // Alternatives to a key that is shown stand in the text above it.
        let name = key.rsplit('.').next().unwrap_or_default();
        let in_prose = REFERENCE.lines().any(|line| line.starts_with(&format!("# {name} = ")));
        assert!(named.contains(&key) || in_prose, "node.toml does not mention {key}");
    }
}

#[test]
fn every_number_has_a_bound_that_its_default_keeps_and_the_reference_states() {
    let config = NodeConfig { cluster: Some(ClusterConfig::default()), ..NodeConfig::default() };
    let text = toml::to_string(&config).expect("a configuration is a table");
    let document = Document::parse("defaults", &text).expect("what is printed parses");
    let mut numbers = BTreeSet::new();
    for entry in document.entries() {
        let Some(value) = entry.integer else { continue };
        let (low, high) = bounds::bound(&entry.pattern).unwrap_or_else(|| panic!("{} has no bound", entry.pattern));
        assert!((i128::from(low)..=i128::from(high)).contains(&value), "{}", entry.pattern);
        numbers.insert(entry.pattern.clone());
    }
    for (key, low, high) in bounds::BOUNDS {
        assert!(key.ends_with(".*") || numbers.contains(*key), "a bound for {key}, which is no key");
        assert!(low < high, "{key}");
    }
    assert!(bounds::check(&document).is_empty());
}

#[test]
fn the_reference_states_the_bounds_that_are_checked() {
    let (mut prose, mut seen) = (String::new(), BTreeSet::new());
    for line in REFERENCE.lines() {
        let optional = line.strip_prefix('#').unwrap_or(line);
        let Some((key, _)) = optional.split_once(" = ").filter(|(key, _)| !key.contains(' ')) else {
            prose = if line.starts_with('#') { prose + line } else { String::new() };
            continue;
        };
        let stated = bounds::BOUNDS.iter().find(|(name, ..)| name.rsplit('.').next() == Some(key));
        if let Some((name, _, high)) = stated.filter(|_| seen.insert(key)) {
            let high = if *name == "listener.mode" { format!("0o{high:o}") } else { high.to_string() };
            let by_key = *name == "tenant_defaults.session_expiry_min_s";
            assert!(by_key || prose.contains(&high), "the text above {key} does not say that {high} is the most");
        }
        prose.clear();
    }
}

#[test]
fn what_is_printed_loads_as_the_same() {
    for text in [REFERENCE.to_owned(), uncommented_reference()] {
        let mut loaded = load(&text).unwrap_or_else(|errors| panic!("{errors}"));
        // Values of headers are secrets, and printed as asterisks.
        if let Some(http) = &mut loaded.auth.http {
            http.headers.clear();
        }
        let again = load(&loaded.to_toml()).unwrap_or_else(|errors| panic!("{errors}\n{}", loaded.to_toml()));
        assert!(again == loaded, "not what was printed: {}", again.to_toml());
    }
}

#[test]
fn every_table_is_one_that_a_file_may_have() {
    let printed: toml::Table = everything().to_toml().parse().expect("what is printed parses");
    let printed: BTreeSet<&str> = printed.keys().map(String::as_str).chain(["tenant"]).collect();
    assert_eq!(printed, TABLES.into_iter().collect());
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(load("").expect("nothing is required"), defaults());
}

#[test]
fn mistakes_are_told_with_line_and_key() {
    assert_refused("[node]\ncores = 2\ncoers = 3", "built-in defaults:3: node.coers: unknown field `coers`");
    assert_refused(
        "[nod]\ncores = 2",
        "built-in defaults:1: nod: unknown table, expected one of node, store, cluster, roles, listener, auth, acl",
    );
    assert_refused("\n[node]\ncores = \"two\"", ":3: node.cores: invalid type: string \"two\", expected u16");
    assert_refused("[node]\ncores = 70000", ":2: node.cores: 70000 is out of range: allowed is 0 to 1024");
    assert_refused("[node]\ncores = -1", "node.cores: -1 is out of range");
    assert_refused("[node]\ncores = 1.5", "node.cores: invalid type: floating point `1.5`");
    assert_refused("[node]\ncores = 1\ncores = 2", ":3: duplicate key");
    assert_refused("[node\ncores = 1", ":1: ");
    assert_refused("node = 3", ":1: node: ");
    assert_refused("tenant = 3", ":1: tenant: expected a table, found a integer");
    assert_refused("[[listener]]\nbind = \"127.0.0.1:0\"", ":1: listener[0]: missing field `protocol`");
    assert_refused("[[listener]]\nprotocol = \"udp\"", ":2: listener[0].protocol: unknown variant `udp`");
    assert_refused(
        "[[listener]]\nprotocol = \"tcp\"\nbind = \"localhost\"",
        ":3: listener[0].bind: invalid socket address",
    );
    assert_refused(
        "[log]\nevents = { by_clinet = \"off\" }",
        ":2: log.events.by_clinet: there is no such kind of event",
    );
    assert_refused("[log.events]\nby_client = \"loud\"", ":2: log.events.by_client: unknown variant `loud`");
    assert_refused("[admin]\nbind = \"9091\"", ":2: admin.bind: invalid socket address");
}

#[test]
fn a_cluster_that_strangers_could_join_or_nobody_could_reach_is_refused() {
    assert_refused("[cluster]\nbind = \"10.0.0.1:7946\"", ":2: cluster.bind: other machines can reach it");
    let tls = "[cluster]\nbind = \"10.0.0.1:7946\"\n[cluster.tls]\nca = \"a\"\ncertificate = \"/b\"\n";
    let loaded = Loaded::parse(&format!("{tls}key = \"c\""), Source::File("/etc/bifro/node.toml".into()));
    let tls_of = |loaded: Loaded| loaded.config.cluster.and_then(|cluster| cluster.tls).expect("it is there");
    let files = tls_of(loaded.expect("certificates will do instead of a secret"));
    assert_eq!((&*files.ca, &*files.certificate, &*files.key), ("/etc/bifro/a", "/b", "/etc/bifro/c"));
    assert_refused(tls, "built-in defaults:3: cluster.tls: missing field `key`");
    let open = "[cluster]\nbind = \"0.0.0.0:7946\"\nsecret_file = \"s\"\n";
    assert_refused(open, "cluster.advertise: missing");
    assert_refused(&format!("{open}advertise = \"0.0.0.0:1\""), ":4: cluster.advertise: nobody can reach 0.0.0.0:1");
    assert_refused("[cluster]\nadvertise = \"127.0.0.1:0\"", ":2: cluster.advertise: nobody can reach 127.0.0.1:0");
    assert_refused("[cluster]\nseeds = [\"a:1\", \"b\"]", ":2: cluster.seeds: \"b\" is not of the form \"host:port\"");
    assert_refused("[cluster]\nseeds = [\":7946\"]", "cluster.seeds: \":7946\" is not");
    assert_refused("[cluster]\nprobe_interval_ms = 49", "cluster.probe_interval_ms: 49 is out of range");
    parse(&format!("{open}advertise = \"10.0.0.1:7946\"\nseeds = [\"[::1]:7946\", \"a.b:1\"]"))
        .expect("this is in order");
}

#[test]
fn all_mistakes_of_a_kind_are_told_at_once() {
    let told = refusal("[limits]\nturn_bytes = 0\nmesh_capacity = 0\n[[listener]]\nprotocol = \"tcp\"\nbacklog = 0");
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.contains(":2: limits.turn_bytes: 0 is out of range"), "{told}");
    assert!(told.contains(":6: listener[0].backlog: 0 is out of range"), "{told}");
}

/// HOSTILE 30: no number may be such that code divides by it or allocates without end.
#[test]
fn every_bounded_key_refuses_what_lies_outside() {
    for (key, low, high) in bounds::BOUNDS {
        let key = key.replace('*', "total_connections");
        let (table, name) = key.rsplit_once('.').expect("bounds name table and key");
        let header =
            if table == "listener" { "[[listener]]\nprotocol = \"tcp\"".to_owned() } else { format!("[{table}]") };
        for outside in [i128::from(*low) - 1, i128::from(*high) + 1] {
            let told = refusal(&format!("{header}\n{name} = {outside}"));
            assert!(told.contains(name) || told.contains("integer"), "{key} = {outside}: {told}");
        }
    }
}

#[test]
fn a_tenant_states_only_what_differs() {
    let config = parse(
        "[tenant_defaults]\nmaximum_qos = 1\npublish_rate_max = 5\n[tenant_defaults.quota]\ntotal_connections = 10\ntotal_retain_topics = 4\n\
         [tenant.acme]\nmaximum_qos = 2\n[tenant.acme.quota]\ntotal_connections = 99\n[tenant.plain]",
    )
    .expect("in order");
    let acme = config.tenant("acme");
    assert_eq!((acme.settings.maximum_qos, acme.settings.publish_rate_max), (2, 5));
    assert_eq!((acme.quota.total_connections, acme.quota.total_retain_topics), (99, 4));
    assert_eq!(config.tenant("plain"), &config.tenant_defaults);
}

#[test]
fn mistakes_in_a_tenant_are_told_under_its_name() {
    assert_refused(
        "[tenant.acme]\nmaximum_qos = 3",
        ":2: tenant.acme.maximum_qos: 3 is out of range: allowed is 0 to 2",
    );
    assert_refused("[tenant.acme]\nmaximum_qso = 1", ":2: tenant.acme.maximum_qso: unknown field");
    assert_refused("[tenant.acme.quota]\ntotal = 1", ":2: tenant.acme.quota.total: unknown field");
    assert_refused("[tenant.acme]\nquota = 1", ":2: tenant.acme.quota: expected a table");
    assert_refused("[tenant.\"a/b\"]", ":1: tenant.a/b: a tenant's name may not contain '/'");
    assert_refused(
        "[tenant_defaults]\nsession_expiry_max_s = 10\n[tenant.acme]\nsession_expiry_min_s = 11",
        ":4: tenant.acme.session_expiry_min_s: 11 is above session_expiry_max_s = 10",
    );
}

const TLS: &str = "[[listener]]\nprotocol = \"tls\"\nbind = \"127.0.0.1:8883\"\n";

#[test]
fn listeners_say_what_they_need_and_nothing_that_does_nothing() {
    let listener = |keys: &str| format!("[[listener]]\n{keys}");
    let tcp = |keys: &str| listener(&format!("protocol = \"tcp\"\nbind = \"127.0.0.1:1\"\n{keys}"));
    assert_refused("listener = []", "listener: at least one listener");
    assert_refused(&listener("protocol = \"tcp\""), "listener[0].bind: missing");
    assert_refused(&listener("protocol = \"unix\""), "listener[0].path: a unix listener needs a path");
    assert_refused(&listener("protocol = \"unix\"\npath = \"s\"\nbind = \"127.0.0.1:1\""), "listener[0].bind: a unix");
    assert_refused(&tcp("path = \"s\""), ":4: listener[0].path: only a unix listener");
    assert_refused(&tcp("mode = 0"), ":4: listener[0].mode: only a unix listener");
    assert_refused(&tcp("ws_path = \"/x\""), ":4: listener[0].ws_path: only ws and wss");
    assert_refused(&tcp("trust_forwarded_for = [\"::1\"]"), ":4: listener[0].trust_forwarded_for: only ws and wss");
    assert_refused(&tcp("proxy_trusted = [\"::1\"]"), ":4: listener[0].proxy_trusted: does nothing");
    assert_refused(&tcp("proxy_trusted = [\"10.0.0.0/40\"]"), ":4: listener[0].proxy_trusted: expected a network");
    assert_refused(&tcp("proxy_protocol = true"), "listener[0].proxy_trusted: missing");
    assert_refused(&tcp("auth = [\"jwt\", \"jwt\"]"), ":4: listener[0].auth: a method is named twice");
    assert_refused(&tcp("auth = [\"certificate\"]"), ":4: listener[0].auth: \"certificate\" needs tls.client_ca");
    assert_refused(&tcp("tls = { certificate = \"c\", key = \"k\" }"), ":4: listener[0].tls: only tls and wss");
    assert_refused(&(tcp("") + &tcp("")), "listener[1].bind: 127.0.0.1:1 is the address of listener[0].bind already");
    assert_refused(
        &(tcp("") + "[admin]\nbind = \"127.0.0.1:1\""),
        "admin.bind: 127.0.0.1:1 is the address of listener[0].bind already",
    );
    assert_refused(TLS, ":1: listener[0].tls: missing");
    assert_refused(&format!("{TLS}[listener.tls]\ncertificate = \"c\""), "listener[0].tls: missing field `key`");
    let tls = |keys: &str| format!("{TLS}[listener.tls]\ncertificate = \"c\"\nkey = \"k\"\n{keys}");
    assert_refused(&tls("client_auth = \"required\""), "listener[0].tls.client_ca: missing");
    assert_refused(&tls("client_ca = \"ca\""), ":7: listener[0].tls.client_ca: does nothing");
    let ws = listener("protocol = \"ws\"\nbind = \"127.0.0.1:1\"\nws_path = \"mqtt\"");
    assert_refused(&ws, ":4: listener[0].ws_path: \"mqtt\" is no absolute URL path");
}

#[test]
fn only_local_listeners_may_leave_authentication_out() {
    let bind = |address: &str| format!("[[listener]]\nprotocol = \"tcp\"\nbind = \"{address}\"");
    let local = parse(&bind("127.0.0.1:1883")).expect("in order");
    assert_eq!(local.listener[0].auth, [AuthMethod::Anonymous]);
    assert_refused(&bind("0.0.0.0:1883"), ":1: listener[0].auth: missing: a listener that other machines can reach");
    let open = parse(&(bind("0.0.0.0:1883") + "\nauth = [\"anonymous\"]")).expect("said so");
    assert_eq!(open.listener[0].auth, [AuthMethod::Anonymous]);
}

#[test]
fn an_empty_admin_address_switches_the_endpoint_off() {
    assert_eq!(parse("[admin]\nbind = \"\"").expect("in order").admin.bind, None);
}

#[test]
fn too_little_memory_or_an_odd_buffer_count_is_refused() {
    assert_refused("[node]\nmemory_budget_mib = 1", ":2: node.memory_budget_mib: 1 is too little");
    assert_refused("[limits]\nring_buffers = 1000", ":2: limits.ring_buffers: 1000 is not a power of two");
}

#[test]
fn paths_are_relative_to_the_file() {
    let text = format!(
        "[node]\ndata_dir = \"/var/lib/bifro\"\n{TLS}[listener.tls]\ncertificate = \"c.pem\"\nkey = \"/k.pem\""
    );
    let source = Source::File(PathBuf::from("/etc/bifro/node.toml"));
    let config = Loaded::parse(&text, source).expect("in order").config;
    let tls = config.listener[0].tls.as_ref().expect("stated");
    assert_eq!((tls.certificate.as_str(), tls.key.as_str()), ("/etc/bifro/c.pem", "/k.pem"));
    assert_eq!(config.node.data_dir, "/var/lib/bifro");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors =
        Loaded::load(Source::File(PathBuf::from("/nonexistent/node.toml"))).expect_err("there is no such file");
    assert!(errors.to_string().starts_with("/nonexistent/node.toml: cannot be read: "), "{errors}");
}

#[test]
fn cores_on_the_command_line_win_within_their_bound() {
    let loaded = Loaded::load(Source::Defaults).expect("the reference is in order");
    assert_eq!(loaded.clone().with_cores(2).expect("in range").config.node.cores, 2);
    let again = loaded.clone().with_cores(2).expect("in range").load_again().expect("still in order");
    assert_eq!(again.config.node.cores, 2, "at reload too");
    let told = loaded.with_cores(2000).expect_err("out of range").to_string();
    assert_eq!(told, "--cores: node.cores: 2000 is out of range: allowed is 0 to 1024");
}

#[test]
fn providers_are_checked_with_the_listeners_that_name_them() {
    let listener =
        |auth: &str| format!("[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:1\"\nauth = [\"{auth}\"]\n");
    for name in ["password_file", "scram", "jwt", "http", "certificate"] {
        assert_refused(
            &listener(name),
            &format!(":4: listener[0].auth: names \"{name}\", but there is no [auth.{name}]"),
        );
    }
    let loaded = load(&(listener("scram") + "[auth.scram]\npath = \"scram\"")).expect("in order");
    assert_eq!(loaded.auth_chains(), [[ProviderKind::Scram]]);
    assert_refused("[auth]\nhash_threads = 0", ":2: auth.hash_threads: ");
    assert_refused("[auth.password_file]", ":1: auth.password_file: missing field `path`");
    assert_refused("[auth.password]", ":1: auth.password: unknown field `password`");
    assert_refused("[acl]\nfiles = \"x\"", ":2: acl.files: unknown field `files`");
}

#[test]
fn files_of_providers_are_relative_to_the_configuration() {
    let source = Source::File(PathBuf::from("/etc/bifro/node.toml"));
    let loaded = Loaded::parse(&uncommented_reference(), source).expect("in order");
    let passwords = loaded.auth.password_file.expect("shown").path;
    assert_eq!(passwords, Path::new("/etc/bifro/passwords"));
    assert_eq!(loaded.acl.file.as_deref(), Some(Path::new("/etc/bifro/acl.conf")));
    let jwt = loaded.auth.jwt.expect("shown");
    assert_eq!(jwt.ca_file.as_deref(), Some(Path::new("/etc/bifro/ca.pem")));
}

#[test]
fn a_reload_applies_what_can_change_and_names_what_cannot() {
    let tls = |certificate: &str, backlog: u32| {
        format!("{TLS}backlog = {backlog}\n[listener.tls]\ncertificate = \"{certificate}\"\nkey = \"k\"\n")
    };
    let old = load(&tls("old.pem", 10)).expect("in order");
    let changes = "[log]\nlevel = \"debug\"\nformat = \"json\"\n[tenant.acme]\nmaximum_qos = 1\n[auth]\nhash_threads = 3\n\
                   [auth.anonymous]\nloopback_only = false\n[acl]\nfile = \"acl\"";
    let new = load(&(tls("new.pem", 20) + changes)).expect("in order");
    let reload = diff(&old, &new);
    assert_eq!(reload.needs_restart, ["auth.hash_threads", "listener[0].backlog", "log.format"]);
    let live = ["acl.file", "auth.anonymous.loopback_only", "listener[0].tls.certificate", "log.level"];
    for key in live.into_iter().chain(["tenant.acme.maximum_qos"]) {
        assert!(reload.applied.iter().any(|applied| applied == key), "{key} is not in {:?}", reload.applied);
    }
    assert_eq!(reload.config.listener[0].backlog, 10);
    assert_eq!(reload.config.listener[0].tls.as_ref().expect("kept").certificate, "new.pem");
    assert_eq!(reload.config.tenant("acme").settings.maximum_qos, 1);
    assert_eq!(diff(&old, &old), Reload { config: old.config.clone(), applied: vec![], needs_restart: vec![] });
}

#[test]
fn a_listener_that_comes_goes_or_moves_needs_a_restart() {
    let one = load("[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:1\"").expect("in order");
    let moved = load("[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:2\"").expect("in order");
    assert_eq!(diff(&one, &moved).needs_restart, ["listener[0].bind"]);
    let reload = diff(&one, &defaults());
    assert!(reload.needs_restart.contains(&"listener[1].protocol".to_owned()), "{reload:?}");
    assert_eq!(reload.config.listener, one.config.listener);
}

#[test]
fn roles_say_what_a_node_does_and_what_would_do_nothing_is_refused() {
    let roles = |keys: &str| format!("[cluster]\n[roles]\n{keys}\n");
    let seed = parse(&roles("mqtt = false\ninbox = false\nretain = false\nsession_dict = false\napi = false"))
        .expect("in order");
    assert_eq!((seed.listener.len(), seed.admin.bind), (0, None));
    assert_eq!(seed.roles.roles(), Roles::NONE);
    let front_end = parse(&roles("inbox = false\nretain = false")).expect("in order");
    assert_eq!(front_end.listener.len(), 2);
    let alone = "a node that is alone does everything itself";
    for role in ["mqtt", "inbox", "retain", "session_dict"] {
        assert_refused(&format!("[roles]\n{role} = false"), &format!(":2: roles.{role}: {alone}"));
    }
    assert_eq!(parse("[roles]\napi = false").expect("in order").admin.bind, None);
    let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:1\"";
    assert_refused(&(roles("mqtt = false") + listener), ":4: listener: does nothing: roles.mqtt = false");
    assert_refused(
        &roles("api = false\n[admin]\nbind = \"127.0.0.1:1\""),
        ":5: admin.bind: does nothing: roles.api = false",
    );
    assert_refused(&roles("dist = false"), "roles.dist: unknown field `dist`");
    assert_refused(
        &roles("inbox = false\n[store]\ndurability = \"volatile\""),
        ":3: roles.inbox: a node that keeps nothing",
    );
}

#[test]
fn what_is_printed_of_a_node_with_few_roles_is_read_again() {
    let loaded = load("[cluster]\n[roles]\nmqtt = false\napi = false").expect("in order");
    assert_eq!(load(&loaded.to_toml()).expect("in order").config, loaded.config);
}

/// As they stand, but for the files that they name.
#[test]
fn the_examples_are_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<(&str, Roles, SocketAddr)> = Vec::new();
    for kind in ["standard", "independent"] {
        for file in std::fs::read_dir(root.join(kind)).expect("a directory") {
            let path = file.expect("a file").path();
            let loaded = Loaded::load(Source::File(path.clone())).unwrap_or_else(|errors| panic!("{errors}"));
            let (cluster, roles) = (loaded.config.cluster.expect("it is of a cluster"), loaded.config.roles.roles());
            let seeds = ["10.0.0.1:7946", "10.0.0.2:7946", "10.0.0.3:7946"];
            assert_eq!(cluster.seeds, seeds, "{} has other seeds than the rest", path.display());
            assert_eq!(loaded.config.listener.len(), usize::from(roles.has(Roles::MQTT)));
            found.push((kind, roles, cluster.bind));
        }
    }
    let of = |kind: &str| found.iter().filter(move |of| of.0 == kind).map(|of| of.1).collect::<Vec<_>>();
    assert_eq!(of("standard"), [Roles::ALL; 3]);
    let count = |roles: Roles| of("independent").iter().filter(|of| **of == roles).count();
    let store = Roles::ALL.without(Roles::MQTT);
    assert_eq!([count(Roles::API), count(store), count(Roles::MQTT.with(Roles::API))], [1, 3, 2]);
    let mut binds: Vec<_> = found.iter().filter(|of| of.0 == "independent").map(|of| of.2).collect();
    binds.sort_unstable();
    binds.dedup();
    assert_eq!(binds.len(), 6, "no two have one address");
}
