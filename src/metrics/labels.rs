//! The labels of metrics, each with a closed set of values.

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
    /// The kind of a route.
    "kind" RouteKind {
        /// A route that accepts commands.
        Command = "command",
        /// A route that answers queries.
        Query = "query",
        /// A route that sends a stream. Its request time ends at the stream's first bytes.
        Stream = "stream",
    }

    /// The class of an HTTP status.
    "status" StatusClass {
        /// Statuses 100 to 199, of which none is a final response here.
        Informational = "1xx",
        /// Statuses 200 to 299: success.
        Success = "2xx",
        /// Statuses 300 to 399, mostly 304.
        Redirection = "3xx",
        /// Statuses 400 to 499: the client's error.
        ClientError = "4xx",
        /// Statuses 500 to 599: the server's error.
        ServerError = "5xx",
    }

    /// Why a client's connection ended.
    "reason" CloseReason {
        /// The client closed the connection, or it failed.
        Client = "client",
        /// The gateway closed it as HTTP requires: after a response, or at the end of a stream.
        Served = "served",
        /// The client violated the protocol or a limit.
        Refused = "refused",
        /// The client was too slow for a timeout.
        Timeout = "timeout",
        /// The process is draining before its end.
        Drain = "drain",
    }

    /// The limit because of which a client was closed before it was served.
    "limit" AcceptRefusal {
        /// The setting `http.connections_max` was reached.
        Connections = "connections",
        /// The client's address has `http.address_connections_max` connections.
        Address = "address",
        /// No file descriptor was free for clients: the rest is reserved for brokers and the admin
        /// port.
        Descriptors = "descriptors",
        /// One shard had no free socket slot.
        Sockets = "sockets",
        /// The setting `http2.connections_max` was reached. The client was sent GOAWAY.
        Http2 = "http2",
        /// The setting `tls.handshakes_max` was reached.
        Handshakes = "handshakes",
        /// The listener has the PROXY protocol, and the client is not one of `proxies`.
        Proxy = "proxy",
    }

    /// Why a stream was closed at once. Its client got 200 and the time to wait.
    "cause" StreamRefusal {
        /// The topic is being loaded.
        NotReady = "not_ready",
        /// The topic is missing, misconfigured or not readable.
        TopicUnavailable = "topic_unavailable",
        /// The client has used up the `rate` of the route.
        Rate = "rate",
        /// `streams.streams_max` streams are open.
        Streams = "streams",
        /// The client has `streams.client_streams_max` streams.
        ClientStreams = "client_streams",
        /// The process is draining before its end.
        Draining = "draining",
    }

    /// Which end reset a stream of HTTP/2.
    "by" ResetBy {
        /// The client, which no longer needs the response.
        Client = "client",
        /// The gateway: the client broke a rule, or the response could not be completed.
        Gateway = "gateway",
    }

    /// Why the gateway sent GOAWAY to a client of HTTP/2.
    "cause" GoAwayCause {
        /// The process is draining before its end.
        Drain = "drain",
        /// No stream was open for `http.idle_timeout`, or a head was not complete in time.
        Idle = "idle",
        /// The client broke a rule of the protocol.
        Violation = "violation",
        /// The client sent too many frames that ask for nothing, or reset too many streams.
        Flood = "flood",
        /// The setting `http2.connections_max` was reached.
        Limit = "limit",
    }

    /// Why the gateway ended a stream.
    "reason" StreamEnd {
        /// The client closed the connection.
        Client = "client",
        /// The subscriber fell behind the window.
        Slow = "slow",
        /// The client did not take a page of changes within 10 s while other streams waited for
        /// memory.
        Page = "page",
        /// The client's credential expired, or the route was removed.
        Revoked = "revoked",
        /// The process is draining before its end.
        Drain = "drain",
        /// An error of the gateway or the topic.
        Failed = "failed",
    }

    /// Why a command could not be decided after it waited at a barrier. It got 503.
    "cause" BarrierFailure {
        /// A leader did not report the end of its log in time, or there is none.
        Unavailable = "unavailable",
        /// The brokers deny it until an operator acts.
        Denied = "denied",
        /// The leaders reported their ends, but they were not read in time.
        Behind = "behind",
        /// The topic was re-created meanwhile.
        Recreated = "recreated",
        /// The process is draining before its end.
        Draining = "draining",
    }

    /// A request type of Kafka's protocol.
    "api" KafkaApi {
        /// Produce, which appends records to partitions.
        Produce = "produce",
        /// Fetch, which reads records of partitions.
        Fetch = "fetch",
        /// ListOffsets, which returns where logs begin and end.
        ListOffsets = "list_offsets",
        /// Metadata, which returns topics and leaders.
        Metadata = "metadata",
        /// DescribeConfigs, which returns topic configs.
        DescribeConfigs = "describe_configs",
        /// InitProducerId, which assigns a producer id.
        InitProducerId = "init_producer_id",
        /// OffsetForLeaderEpoch, which returns where an epoch's records end.
        OffsetForLeaderEpoch = "offset_for_leader_epoch",
        /// Requests that open a connection: ApiVersions and SASL.
        Connection = "connection",
    }

    /// Why a request to a broker failed.
    "error" KafkaFailure {
        /// The connection failed, or was closed before the response.
        Connection = "connection",
        /// No response arrived in time.
        Timeout = "timeout",
        /// The response was not valid, or exceeded a limit.
        Protocol = "protocol",
        /// Another broker is leader, or the topic is missing. New metadata is requested.
        Leader = "leader",
        /// The broker returned another error.
        Broker = "broker",
    }

    /// Why a record of a replies topic completed no command of this instance.
    "reason" IgnoredReply {
        /// The record has no correlation id header, or a null one.
        NoCorrelationId = "no_correlation_id",
        /// The correlation id was not created by a gateway.
        MalformedCorrelationId = "malformed_correlation_id",
        /// The record has correlation id headers with different values.
        AmbiguousCorrelationId = "ambiguous_correlation_id",
        /// The request has a stored reply, which stands. A service that answers the second record
        /// of a request again does this, and it is normal.
        Repeated = "repeated",
        /// The command is not in flight here: it belongs to another instance, or the reply is late.
        /// This is normal.
        NotInFlight = "not_in_flight",
    }

    /// The limit that rejected a command with 503 `overloaded`.
    "limit" CommandLimit {
        /// `commands.open_max` commands are in flight.
        Commands = "commands",
        /// Twice `commands.open_max` clients wait.
        Waiters = "waiters",
        /// `commands.waiters_max` clients wait for this command.
        WaitersOfOne = "waiters_of_one",
        /// The client has its share of the commands in flight, or `commands.client_open_max`.
        ClientCommands = "client_commands",
        /// The client has its share of those that may wait.
        ClientWaiters = "client_waiters",
    }

    /// The result of a command, as reported to its client.
    "outcome" CommandOutcome {
        /// The reply arrived while the client waited, for its own record or for one that it joined.
        Answered = "answered",
        /// The client received a stored reply.
        Replayed = "replayed",
        /// 202 or 204: the record is appended, and the client does not wait for a reply.
        Accepted = "accepted",
        /// 422: the idempotency key was used for another request.
        Mismatch = "mismatch",
        /// 409: the same command is in flight, and the route does not wait for it.
        InProgress = "in_progress",
        /// 503: the brokers rejected the record, so the command is not executed.
        Refused = "refused",
        /// 504: no reply by the deadline, or it is unknown whether the record was appended. The
        /// command may still be executed.
        Unknown = "unknown",
        /// 503: rejected before producing, because of a limit.
        Shed = "shed",
        /// 4xx: rejected before producing, because of size, key, body or precondition.
        Invalid = "invalid",
    }
}

impl KafkaApi {
    /// Returns the label of an API key of the protocol.
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
    /// Returns the class of a status from 100 to 599.
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
