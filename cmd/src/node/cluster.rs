//! The node's part in a cluster, if it is to have one.

use super::StartError;
use super::storage::Storage;
use crate::admin::{ClusterCell, ShardBeat};
use crate::config::Loaded;
use bifro_cluster::identity::Identity;
use bifro_cluster::{Secret, Settings, Underlay};
use bifro_core::config::ClusterConfig;
use bifro_core::ids::NodeId;
use bifro_store::fatal::exit_process;
use bifro_store::host::random;
use bifro_swim::{Config, Health};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Characters of the shortest secret.
const SECRET_CHARACTERS_MIN: usize = 16;

/// The secret of the configuration; an empty one if it names none, which only a node that nobody else can reach may do.
pub(super) fn secret(config: &ClusterConfig) -> Result<Secret, StartError> {
    let Some(file) = &config.secret_file else { return Ok(Secret::new("")) };
    let refuse = |problem: String| StartError::Secret { file: file.clone(), problem };
    let text = std::fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let length = text.trim().chars().count();
    if length < SECRET_CHARACTERS_MIN {
        let advice = "`openssl rand -hex 32` makes a good one; it must be the same on all nodes";
        return Err(refuse(format!(
            "has {length} characters, and at least {SECRET_CHARACTERS_MIN} are needed: {advice}"
        )));
    }
    Ok(Secret::new(&text))
}

/// Joins the cluster of the configuration, if there is one, and lets the admin endpoint see it.
pub(super) fn join(
    loaded: &Loaded,
    storage: &Storage,
    beats: &[Arc<ShardBeat>],
    cell: &ClusterCell,
) -> Result<Option<Underlay>, StartError> {
    let Some(config) = &loaded.config.cluster else { return Ok(None) };
    let (id, identity) = match storage.node_id() {
        Some(id) => (id, Identity::open(Path::new(&loaded.config.node.data_dir))?),
        None => (NodeId(random()?), Identity::volatile()),
    };
    let (beats, stall) = (beats.to_vec(), Duration::from_secs(loaded.config.admin.stall_s.into()));
    let cells = storage.cells();
    let shards = u16::try_from(beats.len()).expect("shards are counted in 16 bits");
    let underlay = Underlay::start(Settings {
        id,
        identity,
        nonce: random()?,
        bind: config.bind,
        advertise: config.advertise,
        seeds: config.seeds.clone(),
        secret: secret(config)?,
        swim: timings(config),
        shards,
        health: Box::new(move || {
            let turns = beats.iter().all(|beat| beat.silence() < stall);
            let has_space = !cells.as_ref().is_some_and(|cells| cells.is_space_short());
            if turns && has_space { Health::Well } else { Health::Impaired }
        }),
        fatal: exit_process(),
    })?;
    cell.show(underlay.handle().clone());
    Ok(Some(underlay))
}

/// Everything in proportion to the probe interval, as in the defaults.
fn timings(config: &ClusterConfig) -> Config {
    let probe_interval = Duration::from_millis(config.probe_interval_ms.into());
    Config {
        probe_interval,
        probe_timeout: probe_interval * 2 / 5,
        gossip_interval: probe_interval / 2,
        eviction_grace: Duration::from_secs(config.eviction_grace_s.into()),
        ..Config::default()
    }
}
