//! What shards ask of the inboxes in QoS 2 exchanges.

use bifro_core::ids::InboxSeq;
use bifro_core::ports::Origin;
use bifro_range::inbox::OwnerRef;

/// A step of a QoS 2 exchange; see [`bifro_core::ports::Inbox`].
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A publish has been taken over.
    Receive(Origin),
    /// PUBREL has come.
    Release(Origin),
    /// The publisher's inbox knows of the publish, or it has failed; true if it may still be on its way.
    Forget(Origin, bool),
    /// Which groups have the publish?
    Inquire(Origin),
    /// PUBREC has come.
    Hold(OwnerRef, InboxSeq),
}
