//! The task of one device: it opens a session when something waits, carries it, and tries again what a broken session lost.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf as _, BytesMut};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::HubError;
use super::address::Address;
use super::ask::{Order, Queue};
use super::create::{Denials, Standing, establish};
use super::pace::Pace;
use super::registry::Registry;
use super::sas::Tokens;
use super::session::{Broken, Session};
use crate::config::Pipeline;
use crate::ids::{ApplicationId, DevicePrefix, EndDevice};

/// Time that a new session needs at the very least; a retry that has less is not begun.
const RETRY_NEEDS: Duration = Duration::from_millis(250);

/// Pause before the first retry, and the longest; each is multiplied by 0.5 to 1.5, so that two instances which take a
/// device over from each other do not keep step.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Time for DISCONNECT and the end of TLS. Nothing depends on them.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// Bytes read at once: the packets of a whole session.
const READ_BYTES: usize = 4 * 1024;

/// CONNACK: bad user name or password, and not authorised.
const NOT_AUTHORISED: [u8; 2] = [4, 5];

/// What all sessions of one hub share.
pub(super) struct Shared {
    pub(super) hostname: String,
    pub(super) prefix: DevicePrefix,
    pub(super) address: Address,
    pub(super) server_name: ServerName<'static>,
    pub(super) tls: TlsConnector,
    pub(super) tokens: Tokens,
    pub(super) pipeline: Pipeline,
    pub(super) linger: Duration,
    pub(super) registry: Registry,
    pub(super) application: ApplicationId,
    pub(super) denials: Denials,
    pub(super) sessions: Semaphore,
    pub(super) closing: CancellationToken,
}

/// Why a session ended otherwise than in order.
enum Failure {
    /// Not opened, and another try before the deadlines is no use.
    Hopeless(HubError),
    /// Not opened, or broken.
    Lost(HubError),
    /// CONNACK with this code.
    Refused(u8),
}

/// The orders of one device that came while its session was open or opening.
pub(super) type Inbox = mpsc::Receiver<Box<Order>>;

/// The task of one device.
pub(super) struct Lane {
    shared: Arc<Shared>,
    device: EndDevice,
    inbox: Inbox,
    queue: Queue,
    failures: u32,
    /// What the registry said after a refusal.
    standing: Option<Standing>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, device: EndDevice, inbox: Inbox) -> Self {
        Self { shared, device, inbox, queue: Queue::default(), failures: 0, standing: None }
    }

    /// Works until nothing waits. `retire` takes the lane out of the pool, or hands over what came at the last moment.
    pub(super) async fn run(mut self, retire: impl Fn(&mut Inbox) -> Option<Box<Order>>) {
        loop {
            self.receive();
            self.queue.prune(Instant::now());
            if self.queue.is_empty() {
                let Some(order) = retire(&mut self.inbox) else { return };
                self.queue.push(*order);
                continue;
            }
            match self.session().await {
                Ok(()) => (self.failures, self.standing) = (0, None),
                Err(Failure::Hopeless(error)) => self.queue.fail_all(&error),
                Err(Failure::Lost(error)) => self.retry(&error).await,
                Err(Failure::Refused(code)) if NOT_AUTHORISED.contains(&code) => self.not_authorised(code).await,
                Err(Failure::Refused(code)) => {
                    let device = self.device.id.clone();
                    self.retry(&HubError::Refused { device, code }).await;
                }
            }
        }
    }

    fn receive(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            self.queue.push(*order);
        }
    }

    /// One session, from its place in the pool to DISCONNECT.
    async fn session(&mut self) -> Result<(), Failure> {
        let (Some(deadline), Some(pace)) = (self.queue.latest_deadline(), self.queue.pace().cloned()) else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let late = || Failure::Lost(HubError::Timeout { device: self.device.id.clone(), what: "connection" });
        let (_permit, stream) =
            timeout_at(deadline, self.open(&shared, &pace, deadline)).await.map_err(|_| late())??;
        let result = self.ride(stream, &pace).await;
        if let Err(Failure::Lost(_)) | Err(Failure::Refused(3)) = result {
            pace.connects.refused(Instant::now());
        }
        result
    }

    async fn open<'a>(
        &self,
        shared: &'a Shared,
        pace: &Pace,
        deadline: Instant,
    ) -> Result<(SemaphorePermit<'a>, TlsStream<TcpStream>), Failure> {
        let id = &self.device.id;
        let permit = shared.sessions.acquire().await.map_err(|_| Failure::Hopeless(HubError::Closed))?;
        let paced = || Failure::Hopeless(HubError::Paced { device: id.clone(), what: "session" });
        sleep_until(pace.connects.reserve(Instant::now(), deadline).ok_or_else(paced)?).await;
        let lost = |step| move |error: io::Error| Failure::Lost(HubError::unreachable(id, step, error));
        let tcp = shared.address.connect().await.map_err(lost("connect to IoT Hub"))?;
        let stream =
            shared.tls.connect(shared.server_name.clone(), tcp).await.map_err(lost("agree on TLS with IoT Hub"))?;
        debug!(device = %id, version = ?stream.get_ref().1.protocol_version(), resumed = ?stream.get_ref().1.handshake_kind(), "connected");
        Ok((permit, stream))
    }

    /// Carries one session over a connection. What it leaves unanswered is back in the queue afterwards.
    async fn ride<S: AsyncRead + AsyncWrite>(&mut self, stream: S, pace: &Pace) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let token = shared.tokens.token(SystemTime::now());
        let id = &self.device.id;
        let identity = shared.prefix.identity_of(id);
        let session = Session::new(id, identity, &shared.hostname, &token, shared.pipeline, Instant::now());
        let mut session = session.map_err(|error| self.fault(error))?;
        let (mut reader, mut writer) = split(stream);
        let result = self.converse(&mut session, &mut reader, &mut writer, pace).await;
        if result.is_ok() && !session.is_accepted() {
            // Everyone gave up waiting for CONNACK: under load the hub lets it wait.
            pace.connects.refused(Instant::now());
        }
        if result.is_ok() && session.end().is_ok() {
            let farewell = async {
                flush(&mut writer, &mut session.out).await?;
                writer.shutdown().await
            };
            // The work is done; a hub that hangs up first changes nothing.
            let _ = timeout(FAREWELL_LIMIT, farewell).await;
        }
        session.rescue(&mut self.queue);
        debug!(device = %self.device.id, in_order = result.is_ok(), "session ended");
        result
    }

    async fn converse(
        &mut self,
        session: &mut Session,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        pace: &Pace,
    ) -> Result<(), Failure> {
        let closing = self.shared.closing.clone();
        let mut incoming = BytesMut::new();
        let mut idle_since = None;
        let mut unflushed = false;
        loop {
            let now = Instant::now();
            self.receive();
            self.queue.prune(now);
            session.prune(now);
            session.post(&mut self.queue, now).map_err(|error| self.fault(error))?;
            let is_idle = self.queue.is_empty() && !session.is_busy();
            let wake = if is_idle {
                let until = self.stays_until(session, *idle_since.get_or_insert(now));
                if now >= until {
                    return Ok(());
                }
                until
            } else if session.is_silent(now) {
                return Err(self.fault("the hub has stopped answering"));
            } else {
                idle_since = None;
                session.next_look(&self.queue).unwrap_or(now)
            };
            unflushed |= !session.out.is_empty();
            incoming.reserve(READ_BYTES);
            tokio::select! {
                read = reader.read_buf(&mut incoming) => {
                    if read.map_err(|error| self.fault(error))? == 0 {
                        return Err(self.fault("the hub closed the connection"));
                    }
                    self.take(session, &mut incoming, pace)?;
                }
                written = flush(writer, &mut session.out), if unflushed => {
                    written.map_err(|error| self.fault(error))?;
                    unflushed = false;
                }
                Some(order) = self.inbox.recv() => self.queue.push(*order),
                () = sleep_until(wake) => {}
                () = closing.cancelled(), if is_idle => {}
            }
        }
    }

    fn take(&self, session: &mut Session, incoming: &mut BytesMut, pace: &Pace) -> Result<(), Failure> {
        let was_accepted = session.is_accepted();
        let taken = session.take_all(incoming, Instant::now());
        if session.is_accepted() && !was_accepted {
            pace.connects.granted();
            self.shared.denials.disproved(&self.device.id);
        }
        taken.map_err(|broken| match broken {
            Broken::Refused(code) => Failure::Refused(code),
            Broken::Fault(reason) => self.fault(reason),
        })
    }

    /// When an idle session ends. One that awaits the answer to an abandoned twin request stays for it, or the next session's
    /// patch could overtake this one's at the hub; its place in the pool waits with it, for `TWIN_PATIENCE` at most.
    fn stays_until(&self, session: &Session, idle_since: Instant) -> Instant {
        let lingers = idle_since + self.linger(session);
        let answered = session.awaits_twin().filter(|_| !self.shared.closing.is_cancelled());
        answered.map_or(lingers, |answered| lingers.max(answered))
    }

    /// How long this session stays open without work: not at all where others wait for its place, or nobody for its CONNACK.
    fn linger(&self, session: &Session) -> Duration {
        let wanted = self.shared.sessions.available_permits() > 0 && !self.shared.closing.is_cancelled();
        if wanted && session.is_accepted() { self.shared.linger } else { Duration::ZERO }
    }

    fn fault(&self, reason: impl std::fmt::Display) -> Failure {
        Failure::Lost(HubError::unreachable(&self.device.id, "keep a session with IoT Hub", reason))
    }

    /// Waits for the next try. Whoever has too little time left for it hears of the failure now.
    async fn retry(&mut self, error: &HubError) {
        let pause = pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        debug!(device = %self.device.id, %error, failures = self.failures, "session failed");
        self.queue.fail_before(Instant::now() + pause + RETRY_NEEDS, error);
        if !self.queue.is_empty() {
            sleep(pause).await;
        }
    }

    /// The hub says so to unknown devices, to disabled ones and to bad tokens: the registry knows which it is.
    async fn not_authorised(&mut self, code: u8) {
        let shared = Arc::clone(&self.shared);
        let device = self.device.id.clone();
        let denied = HubError::Denied { device: device.clone() };
        let refused = HubError::Refused { device: device.clone(), code };
        match self.standing {
            // It may take the hub a moment to let a new device in.
            Some(Standing::Created) => return self.retry(&refused).await,
            Some(_) => {
                shared.denials.remember(&denied, &device, Instant::now());
                return self.queue.fail_all(&denied);
            }
            None if shared.denials.is_known(&device, Instant::now()) => return self.queue.fail_all(&denied),
            None => {}
        }
        let Some(pace) = self.queue.pace().cloned() else { return };
        // Not cut off by the callers' deadlines: a device that is created is to be tagged, too.
        match establish(&shared.registry, &pace, &shared.application, &self.device).await {
            Ok(Standing::Disabled) => self.queue.fail_all(&HubError::Disabled { device }),
            Ok(standing) => {
                if standing == Standing::Enabled {
                    shared.denials.suspect(&device);
                    shared.tokens.forget();
                }
                self.standing = Some(standing);
                self.retry(&refused).await;
            }
            Err(error) => self.queue.fail_all(&error),
        }
    }
}

/// Writes and flushes; cancelled and called again, it goes on where it was.
async fn flush(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<()> {
    while out.has_remaining() {
        if writer.write_buf(out).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    writer.flush().await
}

fn pause(failures: u32) -> Duration {
    let grown = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
    grown.min(LONGEST_PAUSE).mul_f64(rand::random_range(0.5..1.5))
}
