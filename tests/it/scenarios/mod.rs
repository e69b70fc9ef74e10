//! The gateway's guarantees as scenarios. Each starts gateways on a cluster, acts on them from
//! outside, and checks responses and logs. Each is written once and runs on every cluster; the list
//! in `on_ground!` creates the tests.

pub mod asynchronous;
pub mod brokers;
pub mod choices;
pub mod commands;
pub mod queries;
pub mod retries;
pub mod starting;
pub mod streams;
pub mod window;

/// Creates a module of tests from all scenarios, on one cluster.
macro_rules! on_ground {
    ($ground:path) => {
        $crate::scenarios::on_ground! { $ground,
            commands: [
                a_reply_becomes_the_response,
                every_method_reaches_the_service,
                a_retry_at_a_peer_started_later_gets_the_same_reply,
                equal_requests_at_once_are_one_command,
                another_request_under_the_same_key_is_refused,
                a_key_is_required_where_the_route_says_so,
                a_silent_service_is_an_unknown_outcome_and_the_retry_learns_it,
                a_service_that_applied_nothing_lets_the_key_be_tried_again,
                a_reply_that_is_no_response_is_a_bad_gateway,
                a_header_that_http_can_not_carry_is_left_out_of_the_reply,
                a_reply_that_answers_no_command_is_named_and_counted,
                a_reply_that_is_too_large_is_counted_and_its_client_gets_504,
                two_requests_under_one_key_at_two_gateways_each_get_their_own_reply,
                two_requests_under_one_key_with_a_kill_between_each_get_their_own_reply,
                a_tag_goes_to_clients_and_back_byte_for_byte,
                if_none_match_reaches_the_service,
                commands_of_many_clients_each_get_their_own_reply,
            ],
            asynchronous: [
                an_asynchronous_command_is_read_at_any_instance,
                an_asynchronous_command_waits_as_long_as_its_client_prefers,
                a_location_is_read_by_its_sender_only,
                a_reply_that_is_not_stored_is_read_at_its_location,
                a_poll_ends_with_202_when_the_gateway_drains,
            ],
            choices: [
                a_one_way_command_is_answered_once_it_is_appended,
                a_strict_one_way_route_appends_once_and_its_topic_can_be_streamed,
                a_tombstone_is_written_only_where_the_route_says_so,
                a_route_may_refuse_what_is_in_flight,
                a_route_may_require_a_condition,
                headers_of_a_command_that_are_wrong_are_refused,
            ],
            retries: [
                a_gateway_that_was_frozen_finds_the_reply_that_was_readable,
                a_strict_route_joins_what_another_gateway_appended,
                a_strict_route_runs_again_what_was_not_applied,
                ten_equal_commands_at_two_gateways_are_one_record_or_two,
            ],
            queries: [
                one_record_by_its_key,
                a_validator_saves_the_body,
                all_of_them_over_many_shards,
                what_can_not_stand_in_an_array_is_left_out,
                a_long_pipeline_is_answered_in_order,
                a_write_becomes_visible,
                an_undecodable_batch_is_never_a_404_nor_an_old_value,
                an_undecodable_batch_is_forgotten_with_the_log_start,
                a_topic_that_outgrows_its_cache_is_named_until_there_is_room,
                a_snapshot_names_what_could_not_be_decoded,
                a_collections_tag_changes_with_what_is_removed,
                replies_that_can_not_be_decoded_are_named,
                deleted_keys_are_forgotten_though_nothing_else_happens,
                a_topic_of_too_many_partitions_is_queried_and_not_streamed,
                a_topic_that_is_not_compacted_is_queried_and_not_streamed,
            ],
            streams: [
                a_live_stream_begins_now,
                an_earliest_stream_begins_with_the_log,
                a_snapshot_is_the_newest_of_each_key,
                a_filter_lets_one_key_through,
                records_of_every_codec,
                records_without_key_or_value,
                every_line_end_of_a_value_is_a_line,
                an_unreadable_id_is_told_and_starts_over,
                what_can_not_be_decoded_is_a_gap,
                a_stream_goes_on_at_another_peer,
                a_stream_survives_kill_9,
                a_snapshot_goes_on_at_another_peer,
                one_fetch_however_many_clients,
            ],
            window: [
                after_the_reply_window_a_key_is_new_once,
            ],
            brokers: [
                what_a_broker_does_is_counted_under_its_address,
                a_topic_that_is_full_pauses_each_of_its_partitions,
            ],
            starting: [
                a_missing_topic_is_named_until_it_is_there,
                a_topic_that_is_not_compacted_is_named,
                an_unfit_topic_keeps_its_own_routes_only,
                a_policy_that_may_not_be_meant_is_named_until_it_is_changed,
                a_host_that_does_not_resolve_is_named,
                sigterm_answers_what_is_in_flight,
                the_metrics_page_is_well_formed,
            ],
        }
    };
    ($ground:path, $($module:ident: [$($story:ident,)*],)*) => {
        $(
            mod $module {
                $(
                    #[test]
                    fn $story() {
                        $crate::scenarios::$module::$story($ground());
                    }
                )*
            }
        )*
    };
}
pub(crate) use on_ground;
