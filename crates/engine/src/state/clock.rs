//! Time that goes on while the machine sleeps, and knows when it was started anew.
//!
//! A pause of five minutes must be five minutes: std's `Instant` stands still in suspend, the wall clock is set back
//! and forth. The boot clock does neither, but begins anew with each boot; so a point in time is the boot's id and
//! the milliseconds since.

use std::sync::Arc;

use jiff::Timestamp;

/// A point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which boot.
    pub boot: Arc<str>,
    /// Milliseconds since it.
    pub ms: i64,
}

/// Tells the time. [`SystemClock`], or one that a test turns.
pub trait Clock: Send + Sync {
    /// Now, by the boot clock.
    fn now(&self) -> Moment;
    /// Now, by the wall clock: for messages, and for what goes by the calendar.
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Moment {
        use std::sync::OnceLock;
        static BOOT: OnceLock<Arc<str>> = OnceLock::new();
        let boot = BOOT.get_or_init(|| {
            // Without /proc every start counts as a boot: waits too long rather than too short.
            let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
            id.map_or_else(|_| format!("{}-{}", Timestamp::now(), std::process::id()), |id| id.trim().to_owned()).into()
        });
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Moment { boot: Arc::clone(boot), ms: time.tv_sec * 1000 + time.tv_nsec / 1_000_000 }
    }

    /// Elsewhere than on Linux the wall clock has to do.
    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Moment {
        Moment { boot: "wall".into(), ms: Timestamp::now().as_millisecond() }
    }
}

/// Milliseconds as people say them, rounded up to seconds: `4m10s`.
pub(crate) fn human(ms: i64) -> String {
    let seconds = u64::try_from(ms).unwrap_or(0).div_ceil(1000);
    towpath_core::Period::seconds(seconds).to_string()
}
