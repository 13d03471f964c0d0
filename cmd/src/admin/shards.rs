//! Asking the shards of this node about their ranges, without waiting for any of them: each answers in its own time, by a command like any
//! other, and the last one passes on what all have said.

use bifro_core::ranges::{RangeAnswer, RangeOrder};
use bifro_net::broker::{Command, RangeReply};
use bifro_net::mesh::InletSender;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Hears what all shards say.
type Done = Box<dyn FnOnce(RangeAnswer) + Send>;

/// The shards, once they have been started.
#[derive(Clone, Default)]
pub struct ShardsCell(Arc<OnceLock<Vec<InletSender<Command>>>>);

impl fmt::Debug for ShardsCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShardsCell").field(&self.0.get().map(Vec::len)).finish()
    }
}

/// What has been answered so far.
struct Gathering {
    left: usize,
    answer: RangeAnswer,
    done: Option<Done>,
}

impl ShardsCell {
    /// They are there.
    pub fn show(&self, shards: Vec<InletSender<Command>>) {
        // Once.
        let _ = self.0.set(shards);
    }

    /// Asks all shards. `done` is called when the last has answered, on its thread, unless one of them never does.
    pub fn ask(&self, order: RangeOrder, done: Done) {
        let Some(shards) = self.0.get() else {
            return done(RangeAnswer::of(Err("the node is starting: try again".to_owned())));
        };
        let gathering = Gathering { left: shards.len(), answer: RangeAnswer::default(), done: Some(done) };
        let gathering = Arc::new(Mutex::new(gathering));
        for shard in shards {
            let gathering = gathering.clone();
            let reply = RangeReply::new(move |answer| take(&gathering, answer));
            if let Err(Command::Ranges { reply, .. }) = shard.send(Command::Ranges { order, reply }) {
                reply.send(RangeAnswer::of(Err("a shard is too busy: try again".to_owned())));
            }
        }
    }
}

fn take(gathering: &Mutex<Gathering>, answer: RangeAnswer) {
    let mut gathering = gathering.lock().unwrap_or_else(PoisonError::into_inner);
    gathering.answer.join(answer);
    gathering.left -= 1;
    if gathering.left == 0
        && let Some(done) = gathering.done.take()
    {
        done(std::mem::take(&mut gathering.answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bifro_net::mesh::inlet;
    use std::sync::mpsc;

    #[test]
    fn the_answer_comes_when_all_shards_have_said_something_and_a_full_mailbox_is_told() {
        let cell = ShardsCell::default();
        let (said, heard) = mpsc::channel();
        let ask = |cell: &ShardsCell| {
            let said = said.clone();
            cell.ask(RangeOrder::Show, Box::new(move |answer| said.send(answer.refusal).expect("the test waits")));
        };
        ask(&cell);
        assert!(heard.try_recv().expect("at once").is_some_and(|why| why.contains("starting")));
        let ((one, first), (other, _second)) = (inlet(4), inlet(1));
        cell.show(vec![one, other]);
        ask(&cell);
        let Some(Command::Ranges { reply, .. }) = first.pop() else { panic!("it was asked") };
        reply.send(RangeAnswer::default());
        assert!(heard.try_recv().is_err(), "the other has not answered");
        ask(&cell);
        let Some(Command::Ranges { reply, .. }) = first.pop() else { panic!("it was asked") };
        reply.send(RangeAnswer::default());
        assert!(heard.try_recv().expect("by both").is_some_and(|why| why.contains("too busy")));
    }
}
