//! Questions and replies as bytes: rkyv's archives, without alignment, checked whenever they are read.

use crate::ledger::{ClusterGenesis, Vote};
use crate::message::{Answer, Question, Reply};
use alloc::string::{String, ToString};
use core::fmt;
use rkyv::rancor;
use rkyv::util::AlignedVec;

/// What came is no question, or no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a message about a cluster's genesis: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

/// The bytes of a question; at most [`crate::limits::MESSAGE_BYTES`].
///
/// # Panics
/// Never: a question has no parts whose archiving can fail.
pub fn encode_question(question: &Question) -> AlignedVec {
    rkyv::to_bytes::<rancor::Error>(question).expect("plain values can be archived")
}

/// The bytes of a reply; at most [`crate::limits::MESSAGE_BYTES`].
///
/// # Panics
/// Never: a reply has no parts whose archiving can fail.
pub fn encode_reply(reply: &Reply) -> AlignedVec {
    rkyv::to_bytes::<rancor::Error>(reply).expect("plain values can be archived")
}

/// The question in `bytes`.
///
/// # Errors
/// If there is none, or it has a value that nobody can have proposed.
pub fn decode_question(bytes: &[u8]) -> Result<Question, Malformed> {
    let question = rkyv::from_bytes::<Question, rancor::Error>(bytes).map_err(|error| Malformed(error.to_string()))?;
    let value = match &question {
        Question::Accept { vote } => Some(&vote.value),
        Question::Ask | Question::Prepare { .. } => None,
    };
    check(value)?;
    Ok(question)
}

/// The reply in `bytes`.
///
/// # Errors
/// If there is none, or it has a value that nobody can have proposed.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, Malformed> {
    let reply = rkyv::from_bytes::<Reply, rancor::Error>(bytes).map_err(|error| Malformed(error.to_string()))?;
    let value = match &reply.answer {
        Answer::Decided(value) | Answer::Promise { accepted: Some(Vote { value, .. }), .. } => Some(value),
        _ => None,
    };
    check(value)?;
    Ok(reply)
}

fn check(value: Option<&ClusterGenesis>) -> Result<(), Malformed> {
    match value.is_none_or(ClusterGenesis::is_valid) {
        true => Ok(()),
        false => Err(Malformed("its value is none that can be proposed".to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ballot;
    use alloc::{format, vec};
    use bifro_core::ids::{ClusterId, NodeId};

    #[test]
    fn messages_are_read_as_they_were_written_and_impossible_values_are_not() {
        let value = ClusterGenesis { cluster: ClusterId(1), seed: 2, ranges: 3, founders: vec![NodeId(4), NodeId(5)] };
        let vote = |value: &ClusterGenesis| Vote { ballot: Ballot { round: 6, node: 7 }, value: value.clone() };
        let question = Question::Accept { vote: vote(&value) };
        assert_eq!(decode_question(&encode_question(&question)), Ok(question));
        let answer = Answer::Promise { ballot: Ballot { round: 8, node: 9 }, accepted: Some(vote(&value)) };
        let reply = Reply { from: NodeId(1), answer };
        assert_eq!(decode_reply(&encode_reply(&reply)), Ok(reply));
        for wrong in [
            ClusterGenesis { cluster: ClusterId(0), ..value.clone() },
            ClusterGenesis { ranges: 0, ..value.clone() },
            ClusterGenesis { founders: vec![], ..value.clone() },
            ClusterGenesis { founders: vec![NodeId(5), NodeId(4)], ..value.clone() },
            ClusterGenesis { founders: vec![NodeId(4), NodeId(4)], ..value.clone() },
        ] {
            assert!(decode_question(&encode_question(&Question::Accept { vote: vote(&wrong) })).is_err(), "{wrong:?}");
            let reply = Reply { from: NodeId(1), answer: Answer::Decided(wrong) };
            assert!(decode_reply(&encode_reply(&reply)).is_err(), "{reply:?}");
        }
        assert!(decode_reply(b"").is_err());
    }

    #[test]
    fn questions_and_replies_are_as_recorded() {
        let value = ClusterGenesis { cluster: ClusterId(1), seed: 2, ranges: 3, founders: vec![NodeId(4), NodeId(5)] };
        let (ballot, promised) = (Ballot { round: 6, node: 7 }, Ballot { round: 8, node: 9 });
        let vote = Vote { ballot, value: value.clone() };
        let questions = [Question::Ask, Question::Prepare { ballot }, Question::Accept { vote: vote.clone() }];
        let questions = questions.map(|question| encode_question(&question).into_vec());
        crate::recorded::check("genesis-questions", &questions, |bytes| {
            let question = decode_question(bytes).ok()?;
            Some((format!("{question:?}"), encode_question(&question).into_vec()))
        });
        let answers = [
            Answer::Decided(value),
            Answer::Undecided,
            Answer::NoVote,
            Answer::Promise { ballot, accepted: None },
            Answer::Promise { ballot, accepted: Some(vote) },
            Answer::Accepted { ballot },
            Answer::Refused { promised },
        ];
        let replies = answers.map(|answer| encode_reply(&Reply { from: NodeId(1), answer }).into_vec());
        crate::recorded::check("genesis-replies", &replies, |bytes| {
            let reply = decode_reply(bytes).ok()?;
            Some((format!("{reply:?}"), encode_reply(&reply).into_vec()))
        });
    }

    #[test]
    fn the_longest_message_is_within_its_limit() {
        let founders = (0..crate::limits::SEEDS as u64).map(NodeId).collect();
        let value = ClusterGenesis { cluster: ClusterId(1), seed: 2, ranges: 3, founders };
        let vote = Vote { ballot: Ballot::default(), value };
        assert!(encode_question(&Question::Accept { vote }).len() < crate::limits::MESSAGE_BYTES);
    }
}
