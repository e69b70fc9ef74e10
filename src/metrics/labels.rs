//! Labels with a closed set of values.

use super::family::Label;

macro_rules! labels {
    ($( $(#[doc = $doc:literal])+ $name:literal $Enum:ident {
        $( $(#[doc = $vdoc:literal])+ $Variant:ident = $word:literal, )+
    } )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Enum { $( $(#[doc = $vdoc])+ $Variant, )+ }

        impl Label for $Enum {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$Variant),+];

            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                match self { $(Self::$Variant => $word,)+ }
            }
        }
    )+ };
}

labels! {
    /// What a route does.
    "kind" RouteKind {
        /// A command.
        Command = "command",
        /// A query.
        Query = "query",
        /// A stream: the time is that to its first bytes.
        Stream = "stream",
    }

    /// The hundreds of a status.
    "status" StatusClass {
        /// 1xx; only 101 could end here, and is never sent.
        Informational = "1xx",
        /// 2xx
        Success = "2xx",
        /// 3xx, mostly 304.
        Redirection = "3xx",
        /// 4xx
        ClientError = "4xx",
        /// 5xx
        ServerError = "5xx",
    }

    /// Why a client's connection ended.
    "reason" CloseReason {
        /// The client closed it, or it broke.
        Client = "client",
        /// We did, as HTTP asks for: after a response, or at the end of a stream.
        Served = "served",
        /// It broke the protocol or a limit.
        Refused = "refused",
        /// A timeout towards the client.
        Timeout = "timeout",
        /// The process drains.
        Drain = "drain",
    }

    /// Why a stream ended.
    "reason" StreamEnd {
        /// The client left.
        Client = "client",
        /// It fell out of the window.
        Slow = "slow",
        /// Its credential ran out, or its route is gone.
        Revoked = "revoked",
        /// The process drains.
        Drain = "drain",
        /// Something failed.
        Failed = "failed",
    }

    /// What became of a command, as its client was told.
    "outcome" CommandOutcome {
        /// The reply came while the client waited, to its own record or to one it joined.
        Answered = "answered",
        /// The reply was there before.
        Replayed = "replayed",
        /// 422: the key was used for something else.
        Mismatch = "mismatch",
        /// 503: the brokers refused; it will not run.
        Refused = "refused",
        /// 504: no reply by the deadline, or not known whether it was appended; it may yet run.
        Unknown = "unknown",
        /// 503: refused before producing, by a limit.
        Shed = "shed",
        /// 4xx before producing: size, key, body, precondition.
        Invalid = "invalid",
    }
}

impl StatusClass {
    /// The class of a status from 100 to 599.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}
