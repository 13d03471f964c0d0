//! Mistakes that can be planted, to show that the simulator finds them. Only with the feature `mutations`, which nothing but the simulator's tests turns on;
//! without it every question below is answered `false` at compile time.

use super::RangeServices;

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutations"), expect(unreachable_pub, reason = "public and made with the feature only"))]
pub enum Mutation {
    /// Publishes are routed although some range has no leader.
    RouteUnled,
    /// Answers do not wait until what they rest on is committed and durable.
    AnswerAtOnce,
    /// A subscriber does not wait until the other nodes know of it.
    SubscribeAlone,
    /// What a lost reign was to store is acknowledged.
    ConfirmLostInsertions,
    /// What is stored is not noted as its publisher's.
    StoreWithoutNote,
    /// A step of an exchange of a connection that has lost its session is answered as if it was taken.
    ConfirmStepsOfOthers,
}

#[cfg(feature = "mutations")]
impl Mutation {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::RouteUnled,
        Self::AnswerAtOnce,
        Self::SubscribeAlone,
        Self::ConfirmLostInsertions,
        Self::StoreWithoutNote,
        Self::ConfirmStepsOfOthers,
    ];
}

#[cfg(feature = "mutations")]
impl RangeServices {
    /// Makes the services wrong from now on.
    pub fn plant(&mut self, mutation: Mutation) {
        self.mutation = Some(mutation);
    }

    pub(super) fn is_planted(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

#[cfg(not(feature = "mutations"))]
impl RangeServices {
    pub(super) const fn is_planted(&self, _mutation: Mutation) -> bool {
        false
    }
}
