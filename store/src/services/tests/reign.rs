//! The end of a reign, over storage that does what the test says.

use super::*;
use crate::host::{Disk, Node, Replication, StoreConfig};
use crate::kv::{FjallConfig, SpaceLimits};
use crate::wal::WalConfig;
use bifro_core::ids::{ClusterId, NodeId};
use bifro_core::ports::{Inbox, InboxOwner};
use bifro_genesis::ClusterGenesis;

const ME: NodeId = NodeId(1);

struct Alone {
    services: RangeServices,
    storage: Node,
    tenant: Arc<TenantCtx>,
    now: Instant,
}

impl Alone {
    fn new() -> Self {
        let quota = Arc::new(Quota::new(&QuotaLimits::default()));
        let tenant = Arc::new(TenantCtx { idx: TENANT, name: "t".into(), settings: TenantSettings::default(), quota });
        let genesis = ClusterGenesis { cluster: ClusterId(1), seed: 1, ranges: 1, founders: vec![ME] };
        let (wal, kv, space) = (WalConfig::default(), FjallConfig::default(), SpaceLimits::default());
        let config = StoreConfig { wal, kv, space, replication: Replication::default() };
        let fatal: Fatal = Arc::new(|reason| panic!("{reason}"));
        let storage = Node::simulated(ME, genesis, &Disk::default(), config, fatal.clone()).expect("nothing is wrong");
        let placement =
            Placement { shard: ShardId(0), shards: 1, metrics: Arc::default(), cells: HearingCells::new(1) };
        let (now, found) = (Instant::from_micros(1_000_000), tenant.clone());
        let services = RangeServices::clustered(
            placement,
            &storage,
            Arc::new(|| {}),
            fatal,
            now,
            Arc::new(move |_| found.clone()),
        );
        let mut services = services.expect("nothing is wrong");
        services.set_tenant(tenant.clone());
        Self { services, storage, tenant, now }
    }

    /// Turns, and does all that was handed to the storage; what is completed.
    fn settle(&mut self) -> Vec<Completion> {
        let mut out = Out::default();
        for _ in 0..20 {
            self.services.poll(self.now);
            self.services.end_turn(self.now);
            self.services.drain(&mut out);
            if self.storage.begin_write() {
                self.storage.finish_write();
            }
            while self.storage.do_job() {}
        }
        out.completions
    }
}

#[test]
fn a_subscription_that_ends_with_the_reign_leaves_no_route_behind() {
    let mut alone = Alone::new();
    alone.settle();
    let (client, conn) = (client("c"), conn(ShardId(0), 1));
    let tenant = alone.tenant.clone();
    alone.services.attach(alone.now, ReqId(1), conn, &client, &tenant, AttachTerms::default());
    let attached = alone.settle().into_iter().find_map(|completion| match completion {
        Completion::Attached { result: Ok(attached), .. } => Some(attached),
        _ => None,
    });
    let attached = attached.expect("this node leads");
    let inbox = attached.inbox.expect("it is attached");
    let owner = InboxOwner { conn, client: &client, tenant: TENANT, inbox, epoch: attached.epoch };
    alone.services.subscribe(alone.now, ReqId(2), owner, "a", QOS1);
    alone.settle();
    assert_eq!(alone.services.routes.routes(), 1);
    // The machine forgets it at once; the route goes when that is durable, and so it is not by the end of the reign.
    alone.services.unsubscribe(alone.now, ReqId(3), owner, "a");
    alone.services.end_reign(alone.now, RangeIdx(0));
    alone.services.settle(alone.now);
    assert_eq!(alone.services.routes.routes(), 0);
}
