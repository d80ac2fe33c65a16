//! Deletes blocks on containerd's behalf, in the background.

use std::collections::HashSet;
use std::sync::Arc;

use ozone_proto::containerd::DeleteTransaction;
use ozone_types::{BlockId, ContainerId};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::store::{Request, Slot, Store};

/// Transactions that wait here; containerd sends again what does not fit.
const QUEUE: usize = 1024;

/// The queue of deletions. Dropping it ends the worker after the transaction at hand.
#[derive(Debug)]
pub struct Deletions {
    queue: mpsc::Sender<DeleteTransaction>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    under_way: HashSet<u64>,
    done: Vec<u64>,
}

impl Deletions {
    /// Starts the worker. `news` is told when a transaction is done.
    pub fn start(store: Arc<Store>, news: Arc<Notify>) -> Deletions {
        let (queue, mut waiting) = mpsc::channel::<DeleteTransaction>(QUEUE);
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        tokio::spawn(async move {
            while let Some(transaction) = waiting.recv().await {
                let id = transaction.transaction;
                let done = delete(&store, transaction).await;
                let mut state = shared.lock();
                state.under_way.remove(&id);
                if done {
                    state.done.push(id);
                    news.notify_one();
                }
            }
        });
        Deletions { queue, state }
    }

    /// Queues a transaction, unless it is here already.
    pub fn add(&self, transaction: DeleteTransaction) {
        let id = transaction.transaction;
        let mut state = self.state.lock();
        if state.done.contains(&id) || !state.under_way.insert(id) {
            return;
        }
        if self.queue.try_send(transaction).is_err() {
            state.under_way.remove(&id);
        }
    }

    /// The transactions that were finished since the last call.
    pub fn take_done(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.lock().done)
    }
}

/// True when the blocks are gone for good. Otherwise containerd will ask again.
async fn delete(store: &Store, transaction: DeleteTransaction) -> bool {
    let container = ContainerId(transaction.container);
    let Some(disk) = store.home(container) else {
        // Nothing of it is here, unless it is on a disk that could not be opened.
        return !store.slots().iter().any(|slot| matches!(slot, Slot::Failed { .. }));
    };
    // All are queued before the first answer is waited for: they share groups.
    let asked: Vec<_> = transaction
        .locals
        .into_iter()
        .map(|local| BlockId::new(container, local))
        .map(|block| (block, disk.change(Request::Delete { block })))
        .collect();
    let mut done = true;
    for (block, answer) in asked {
        if let Err(err) = answer.await {
            tracing::warn!(%block, %err, "a block could not be deleted");
            done = false;
        }
    }
    done
}
