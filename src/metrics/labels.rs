//! Labels with a closed set of values.

use super::family::Label;

macro_rules! labels {
    ($( $(#[doc = $doc:literal])+ $name:literal $Enum:ident {
        $( $(#[doc = $vdoc:literal])+ $Variant:ident = $word:literal, )+
    } )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// Which limit closed a client before it was served.
    "limit" AcceptRefusal {
        /// `http.connections_max`.
        Connections = "connections",
        /// File descriptors: the rest is kept for brokers and the admin port.
        Descriptors = "descriptors",
        /// Sockets of one shard.
        Sockets = "sockets",
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

    /// An API of Kafka's protocol.
    "api" KafkaApi {
        /// Records written.
        Produce = "produce",
        /// Records read.
        Fetch = "fetch",
        /// Where logs begin and end.
        ListOffsets = "list_offsets",
        /// Topics and leaders.
        Metadata = "metadata",
        /// What topics are set to.
        DescribeConfigs = "describe_configs",
        /// Who we are as a producer.
        InitProducerId = "init_producer_id",
        /// Where an epoch's records end.
        OffsetForLeaderEpoch = "offset_for_leader_epoch",
        /// What opens a connection: versions, SASL.
        Connection = "connection",
    }

    /// What was wrong with a request to a broker.
    "error" KafkaFailure {
        /// Its connection broke, or was given up.
        Connection = "connection",
        /// No answer came in time.
        Timeout = "timeout",
        /// What came was not Kafka's protocol, or more than is allowed.
        Protocol = "protocol",
        /// Another broker leads, or the topic is not there: newer metadata is asked for.
        Leader = "leader",
        /// The broker said something else.
        Broker = "broker",
    }

    /// Why a record of a replies topic answered no command here.
    "reason" IgnoredReply {
        /// It lacks the header of the correlation id.
        NoCorrelationId = "no_correlation_id",
        /// Its correlation id does not have the form of ours.
        MalformedCorrelationId = "malformed_correlation_id",
        /// Its command is not in flight here: it is another instance's, late, or repeated. Normal.
        NotInFlight = "not_in_flight",
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

impl KafkaApi {
    /// The API of a key in the protocol.
    #[must_use]
    pub const fn of(key: i16) -> Self {
        match key {
            0 => Self::Produce,
            1 => Self::Fetch,
            2 => Self::ListOffsets,
            3 => Self::Metadata,
            22 => Self::InitProducerId,
            23 => Self::OffsetForLeaderEpoch,
            32 => Self::DescribeConfigs,
            _ => Self::Connection,
        }
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
