//! Delivering a message to the subscribers that a shard has itself.

use super::Broker;
use bifro_core::ids::{Slot, TenantIdx};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::ports::{LivePlaces, Services};
use bifro_core::settings::Resource;
use bifro_mqtt::codec::Fanout;
use bifro_mqtt::session::{Cx, Delivery, Outbox};
use std::sync::Arc;

impl<S: Services> Broker<S> {
    /// Fans a message out to this shard's subscribers.
    pub(super) fn deliver_live(
        &mut self,
        tenant: TenantIdx,
        view: &MessageView<'_>,
        owned: Option<&Arc<Message>>,
        places: &LivePlaces,
    ) {
        self.deliver_run(tenant, view, owned, places, |_| None);
    }

    /// Fans a message out to this shard's subscribers, and after it those that differ by their payload alone, as long as `next` has any.
    pub(super) fn deliver_run<'m>(
        &mut self,
        tenant: TenantIdx,
        view: &MessageView<'m>,
        owned: Option<&Arc<Message>>,
        places: &LivePlaces,
        next: impl FnMut(&mut Self) -> Option<&'m [u8]>,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let now = self.now;
        self.deliver_to_places(
            tenant,
            &mut Fanout::with_scratch(*view, owned.cloned(), now, &mut scratch),
            places,
            next,
        );
        self.scratch = scratch;
    }

    fn deliver_to_places<'f, 'm: 'f>(
        &mut self,
        tenant: TenantIdx,
        fanout: &mut Fanout<'f>,
        places: &LivePlaces,
        mut next: impl FnMut(&mut Self) -> Option<&'m [u8]>,
    ) {
        if let [place] = **places {
            return self.deliver_to_entry(tenant, fanout, place, next);
        }
        let mut merged = std::mem::take(&mut self.merged);
        self.fanout.merge(places, fanout.view.publisher, &mut merged);
        loop {
            if self.may_fan_out(tenant, &fanout.view, merged.len()) {
                for one in &merged {
                    self.deliver_one(tenant, fanout, one.conn, one.options, &one.ids, None);
                }
            }
            let Some(payload) = next(self) else { break };
            fanout.follow(payload);
        }
        self.merged = merged;
    }

    fn deliver_to_entry<'f, 'm: 'f>(
        &mut self,
        tenant: TenantIdx,
        fanout: &mut Fanout<'f>,
        place: Slot,
        mut next: impl FnMut(&mut Self) -> Option<&'m [u8]>,
    ) {
        // The table cannot change meanwhile: deliveries only write to wires and queues. Its subscribers are taken out for the
        // loop so that the rest of the shard stays reachable.
        let Some(entry) = self.fanout.entry_mut(place) else { return };
        let subscribers = std::mem::take(&mut entry.subscribers);
        loop {
            if self.may_fan_out(tenant, &fanout.view, subscribers.len()) {
                for subscriber in &subscribers {
                    if subscriber.options.no_local && subscriber.key == fanout.view.publisher {
                        continue;
                    }
                    let id = subscriber.options.subscription_id;
                    self.deliver_one(tenant, fanout, subscriber.conn, subscriber.options, id.as_slice(), None);
                }
            }
            let Some(payload) = next(self) else { break };
            fanout.follow(payload);
        }
        if let Some(entry) = self.fanout.entry_mut(place) {
            entry.subscribers = subscribers;
        }
    }

    fn may_fan_out(&self, tenant: TenantIdx, view: &MessageView<'_>, subscribers: usize) -> bool {
        let bytes = ((view.topic.len() + view.payload.len()) * subscribers) as u64;
        let quota = &self.tenants.ctx(tenant).quota;
        quota.spend(Resource::TotalTransientFanOutBytesPerSeconds, bytes, self.now)
    }

    /// Delivers to one connection.
    pub(super) fn deliver_one(
        &mut self,
        tenant: TenantIdx,
        fanout: &mut Fanout<'_>,
        conn: Slot,
        options: bifro_core::ports::SubOptions,
        ids: &[std::num::NonZeroU32],
        shared: Option<&(&str, &bifro_core::ports::GroupName)>,
    ) {
        self.work += 1;
        let Some(conn) = self.conns.get_mut(conn) else { return };
        if conn.closing {
            return;
        }
        let delivery = Delivery {
            qos: options.qos.min(fanout.view.qos),
            // [MQTT-3.3.1-9], [MQTT5-3.3.1-12], [MQTT5-3.3.1-13]
            retain: options.retain_as_published && fanout.view.retain,
            subscription_ids: ids,
            check: options.check_deliveries,
            seq: None,
            shared: shared.copied(),
        };
        let cx =
            Cx { now: self.now, tenant: self.tenants.ctx(tenant), authorizer: &*self.authorizer, over_budget: false };
        conn.congested = conn.congested || conn.outgoing_bytes() > self.budget.high_water_bytes();
        let congested = conn.congested;
        self.wires.supply(&mut conn.wire);
        let mut out = Outbox {
            wire: &mut conn.wire,
            effects: &mut self.effect_scratch,
            tally: &mut self.tally,
            congested,
            share: self.settings.turn_bytes_per_conn,
        };
        conn.session.deliver(&cx, fanout, &delivery, &mut out);
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(conn.slot);
        }
        let slot = conn.slot;
        // The message may have to be sent again some time.
        if delivery.qos != QoS::AtMostOnce
            && let Some(at) = conn.next_alarm()
        {
            self.wheel.schedule(slot, at);
        }
        if !self.effect_scratch.is_empty() {
            self.effects.extend(self.effect_scratch.drain(..).map(|effect| (slot, effect)));
        }
    }
}
