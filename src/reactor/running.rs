//! The handle of `boot.rs` and the control thread to the running shards.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};

use super::mailbox::{ControlInbox, DriverCommand, Inbox, ShardHandle};
use super::resolver::{RESOLVING_MAX, Resolver};
use super::thread::{Common, run_shard};
use super::unix_files::UnixFile;
use super::{BACKLOG, Clock, Plan, ReactorError, UnixPlace};
use crate::model::{ShardId, overlap};
use crate::shard::{ListenerId, Turn};
use crate::sys::{Listener, Waker, probe};

/// A message that found the inbox of its shard full. Retry later.
#[derive(Debug)]
pub struct Undelivered<M>(pub M);

/// Counters of a shard's driver, read without a message to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Turns since the start. The watchdog compares two values.
    pub turns: u64,
    /// Sockets of clients and brokers, including those that are closing.
    pub sockets: u64,
    /// Listening sockets that are open.
    pub listening: u64,
    /// Clients closed at once because `sockets_max` was reached.
    pub refused: u64,
    /// Clients closed at once to reserve descriptors for other uses.
    pub refused_descriptors: u64,
    /// How often accepting stopped because no descriptor or kernel memory was left.
    pub accepts_failed: u64,
}

/// Starts a thread, an executor and a ring for each of `shards`, and returns once all of them run.
/// Each shard is created on its own thread; its index in the list is its [`ShardId`].
/// `wake_control` is called when [`Running::take`] has a message: from any shard's thread, at most
/// once per turn. It must not block.
///
/// A panic on a shard's thread ends the process with exit code 70. All state is in Kafka, and
/// without the shard its clients would hang.
///
/// # Errors
/// The plan is invalid, the kernel refuses a ring, or a thread or executor cannot be created.
pub fn start<T, F>(
    plan: Plan,
    clock: Clock,
    shards: Vec<F>,
    wake_control: Box<dyn Fn() + Send + Sync>,
) -> Result<Running<T::Message, T::Control>, ReactorError>
where
    T: Turn + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    plan.check(shards.len())?;
    probe()?;
    launch(plan, clock, shards, wake_control)
}

/// [`start`] without checking the plan. Tests let shards sleep longer than a valid plan allows.
pub(super) fn launch<T, F>(
    plan: Plan,
    clock: Clock,
    shards: Vec<F>,
    wake_control: Box<dyn Fn() + Send + Sync>,
) -> Result<Running<T::Message, T::Control>, ReactorError>
where
    T: Turn + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let first = ShardId(0);
    let inboxes: Result<Vec<_>, _> = shards.iter().map(|_| inbox(&plan)).collect();
    let common = Common {
        clock,
        shards: inboxes.map_err(|error| shard_error(first, &error))?.into(),
        control: Arc::new(ControlInbox::new(plan.inbox_batches_max, wake_control)),
        resolver: Resolver::start().map_err(|error| shard_error(first, &error))?,
        plan: Arc::new(plan),
    };
    let mut running = Running {
        plan: Arc::clone(&common.plan),
        shards: Arc::clone(&common.shards),
        control: Arc::clone(&common.control),
        bound: Mutex::new(None),
        unix: Mutex::default(),
        accepts: AtomicBool::new(false),
        threads: Mutex::new(Vec::new()),
    };
    match spawn_all(&mut running, &common, shards) {
        Ok(()) => Ok(running),
        Err(error) => {
            running.command_all(|| DriverCommand::Abandon);
            running.join();
            Err(error)
        }
    }
}

fn inbox<M>(plan: &Plan) -> std::io::Result<Inbox<M>> {
    let handle = ShardHandle::new(Waker::new()?, RESOLVING_MAX);
    Ok(Inbox::new(plan.inbox_batches_max, handle))
}

fn shard_error(shard: ShardId, error: &dyn std::error::Error) -> ReactorError {
    ReactorError::Shard {
        shard,
        why: error.to_string(),
    }
}

/// Starts all threads, then waits until each has reported that its shard runs.
fn spawn_all<T, F>(
    running: &mut Running<T::Message, T::Control>,
    common: &Common<T::Message, T::Control>,
    shards: Vec<F>,
) -> Result<(), ReactorError>
where
    T: Turn + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let count = shards.len();
    let (ready, started) = bounded(count);
    let threads = running
        .threads
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner);
    for (shard, make) in (0..).map(ShardId).zip(shards) {
        let (common, ready): (_, Sender<Result<(), ReactorError>>) =
            (common.clone(), ready.clone());
        let thread = thread::Builder::new().name(format!("shard-{}", shard.0));
        let spawned = thread.spawn(move || run_shard(shard, &common, make, &ready));
        threads.push(spawned.map_err(|error| shard_error(shard, &error))?);
    }
    for _ in 0..count {
        // A thread that panics ends the process, so every other thread reports.
        started.recv().expect("every shard's thread answers")?;
    }
    Ok(())
}

/// The listening sockets that belong to one shard.
type Bound = Vec<(ListenerId, Listener)>;

/// The running shards. The handle is shared between threads; dropping it does not stop the shards.
#[derive(Debug)]
pub struct Running<M, C> {
    plan: Arc<Plan>,
    shards: Arc<[Inbox<M>]>,
    control: Arc<ControlInbox<C>>,
    /// Listeners that are bound and not yet given to the shards, by shard that accepts clients.
    bound: Mutex<Option<Vec<Bound>>>,
    /// The files of the Unix sockets that are bound.
    unix: Mutex<Vec<UnixFile>>,
    accepts: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<M: Send + 'static, C: Send + 'static> Running<M, C> {
    /// Binds every address of the plan for every shard that accepts clients. Returns the real
    /// addresses, in the order of the plan. After an error no socket stays bound. Unless the plan
    /// has `reuse_port`, a port of another process is an error, even if that process would share
    /// it.
    ///
    /// # Errors
    /// [`ReactorError::Bind`] names the address and the cause. A second call is an error.
    pub fn bind(&self) -> Result<Vec<SocketAddr>, ReactorError> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if bound.is_some() || self.accepts.load(Ordering::Acquire) {
            return Err(ReactorError::Plan("its ports are bound already"));
        }
        let mut addresses = self.plan.listeners.clone();
        let mut sockets: Vec<Bound> = self.with_clients().map(|_| Vec::new()).collect();
        // Bind wide addresses first. A later address of the plan that overlaps, as `0.0.0.0` does
        // with `[::]`, then shares the port with this process's socket only: no other process has
        // it.
        let mut order: Vec<usize> = (0..addresses.len()).collect();
        order.sort_by_key(|&n| width(addresses[n]));
        let mut taken: Vec<SocketAddr> = Vec::new();
        for n in order {
            // The first socket decides which port 0 is; the others share it.
            let mut address = addresses[n];
            let mut shared = self.plan.reuse_port || taken.iter().any(|it| overlap(it, &address));
            let id = ListenerId(u8::try_from(n).unwrap_or(u8::MAX));
            for sockets in &mut sockets {
                let bound = self.bind_socket(address, shared);
                let (real, listener) =
                    bound.map_err(|source| ReactorError::Bind { address, source })?;
                sockets.push((id, listener));
                (address, shared) = (real, true);
            }
            addresses[n] = address;
            taken.push(address);
        }
        self.bind_unix(&mut sockets)?;
        *bound = Some(sockets);
        Ok(addresses)
    }

    /// Binds every Unix socket of the plan, and adds each to the listeners of all shards.
    fn bind_unix(&self, sockets: &mut [Bound]) -> Result<(), ReactorError> {
        let shared = self.plan.reuse_port;
        let mut files = Vec::new();
        for (n, place) in self.plan.unix.iter().enumerate() {
            let id = u8::try_from(self.plan.listeners.len() + n).unwrap_or(u8::MAX);
            let bound = bind_unix(place, ListenerId(id), shared, sockets);
            files.push(bound.map_err(|source| unix_error(&place.path, source))?);
        }
        *self.unix.lock().unwrap_or_else(PoisonError::into_inner) = files;
        Ok(())
    }

    fn bind_socket(
        &self,
        address: SocketAddr,
        shared: bool,
    ) -> std::io::Result<(SocketAddr, Listener)> {
        let listener = if shared {
            Listener::bind(address)?
        } else {
            Listener::bind_alone(address, BACKLOG)?
        };
        listener.drop_vanished(self.plan.vanished_after)?;
        Ok((listener.address()?, listener))
    }

    /// Accepts clients on every bound address. Call it once, when the process can answer.
    ///
    /// # Errors
    /// [`ReactorError::Bind`] if another process has started to listen. A call before
    /// [`Self::bind`], or a second one, is an error.
    pub fn accept(&self) -> Result<(), ReactorError> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sockets) = bound.take() else {
            return Err(ReactorError::Plan("no port is bound"));
        };
        for (id, listener) in sockets.iter().flatten() {
            let listening = listener.listen(BACKLOG);
            listening.map_err(|source| self.bind_error(*id, source))?;
        }
        if self.plan.reuse_port {
            let files = self.unix.lock().unwrap_or_else(PoisonError::into_inner);
            for (file, place) in files.iter().zip(&self.plan.unix) {
                let published = file.publish();
                published.map_err(|source| unix_error(&place.path, source))?;
            }
        }
        self.accepts.store(true, Ordering::Release);
        for (inbox, listeners) in self.with_clients().zip(sockets) {
            command(inbox, DriverCommand::Accept(listeners));
        }
        Ok(())
    }

    fn bind_error(&self, id: ListenerId, source: std::io::Error) -> ReactorError {
        let index = usize::from(id.0);
        match self.plan.listeners.get(index) {
            Some(&address) => ReactorError::Bind { address, source },
            None => {
                let place = &self.plan.unix[index - self.plan.listeners.len()];
                unix_error(&place.path, source)
            }
        }
    }

    fn with_clients(&self) -> impl Iterator<Item = &Inbox<M>> {
        let without = usize::from(self.plan.shards_without_clients);
        self.shards.iter().skip(without)
    }

    /// Starts the drain: each shard accepts clients until the queues of its listeners are empty,
    /// then closes them. Connections stay open. Further calls have no effect.
    pub fn stop_accepting(&self) {
        if self.accepts.load(Ordering::Acquire) {
            // A client that finds no file is refused, as one that finds no port.
            let files = self.unix.lock().unwrap_or_else(PoisonError::into_inner);
            files.iter().for_each(UnixFile::remove);
            self.command_all(|| DriverCommand::StopAccepting);
        }
    }

    fn command_all(&self, make: impl Fn() -> DriverCommand) {
        for inbox in self.shards.iter() {
            command(inbox, make());
        }
    }

    /// Sends a message to a shard as [`ShardId::CONTROL`]. Messages keep their order. A message to
    /// a shard that has ended is dropped.
    ///
    /// # Errors
    /// The shard's inbox is full. The message is returned.
    ///
    /// # Panics
    /// The shard does not exist.
    pub fn send(&self, to: ShardId, message: M) -> Result<(), Undelivered<M>> {
        let inbox = &self.shards[usize::from(to.0)];
        match inbox.push(ShardId::CONTROL, vec![message]) {
            Ok(()) => Ok(()),
            Err(mut back) => Err(Undelivered(back.pop().expect("the batch of one"))),
        }
    }

    /// Takes the messages of one shard's turn to the control thread, oldest first.
    #[must_use]
    pub fn take(&self) -> Option<(ShardId, Vec<C>)> {
        self.control.pop()
    }

    /// Number of shards of the process.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The counters of a shard's driver.
    ///
    /// # Panics
    /// The shard does not exist.
    #[must_use]
    pub fn vitals(&self, shard: ShardId) -> Vitals {
        let handle = &self.shards[usize::from(shard.0)].handle;
        Vitals {
            turns: handle.turns.load(Ordering::Relaxed),
            sockets: handle.sockets.load(Ordering::Relaxed),
            listening: handle.listening.load(Ordering::Relaxed),
            refused: handle.refused.load(Ordering::Relaxed),
            refused_descriptors: handle.refused_descriptors.load(Ordering::Relaxed),
            accepts_failed: handle.accepts_failed.load(Ordering::Relaxed),
        }
    }

    /// Blocks until every shard has ended. A second caller does not wait.
    pub fn join(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A panic of a shard would have ended the process.
            let _ = thread.join();
        }
    }
}

/// Binds a Unix socket, and adds it to the listeners of all shards. Clients find it at once, unless
/// it is shared with another process.
fn bind_unix(
    place: &UnixPlace,
    id: ListenerId,
    shared: bool,
    sockets: &mut [Bound],
) -> std::io::Result<UnixFile> {
    let (file, listener) = UnixFile::bind(&place.path, place.mode, shared)?;
    for sockets in sockets {
        sockets.push((id, listener.try_clone()?));
    }
    if !shared {
        listener.listen(BACKLOG)?;
        file.publish()?;
    }
    Ok(file)
}

fn unix_error(path: &Path, source: std::io::Error) -> ReactorError {
    let path = path.to_owned();
    ReactorError::BindUnix { path, source }
}

/// Sorts addresses so that a wide address precedes those it includes: `[::]`, `0.0.0.0`, others.
fn width(address: SocketAddr) -> u8 {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) if ip.is_unspecified() => 0,
        ip if ip.is_unspecified() => 1,
        _ => 2,
    }
}

/// Pushes a command and wakes the shard. The queue has room for all different commands, so a push
/// that fails repeats an earlier command.
fn command<M>(inbox: &Inbox<M>, command: DriverCommand) {
    let _ = inbox.handle.commands.push(command);
    inbox.handle.wake();
}
