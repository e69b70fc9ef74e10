/*
 * What a command costs without a gateway: librdkafka alone, at both ends.
 *
 *   echo serve BOOTSTRAP COMMANDS PARTITIONS
 *     a service: answers each command with its own value, at once; prints "ready"
 *   echo ask BOOTSTRAP COMMANDS PARTITIONS REPLIES PARTITIONS RATE SECONDS
 *     a client: RATE commands a second, one after the other; prints their number, p50_us and p99_us
 *     from the time a command was due to its reply
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void die(const char *what, const char *why) {
    fprintf(stderr, "echo: %s: %s\n", what, why);
    exit(1);
}

static rd_kafka_t *client(rd_kafka_type_t type, const char *bootstrap) {
    char why[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    const char *settings[][2] = {
        {"bootstrap.servers", bootstrap}, {"client.id", "echo"},
        {"group.id", "echo"},             {"enable.auto.commit", "false"},
        {"fetch.wait.max.ms", "500"},     {"isolation.level", "read_committed"},
        {"socket.nagle.disable", "true"}, {"log_level", "2"},
    };
    const char *producing[][2] = {
        {"bootstrap.servers", bootstrap}, {"client.id", "echo"}, {"linger.ms", "0"},
        {"enable.idempotence", "true"},   {"acks", "all"},       {"log_level", "2"},
        {"socket.nagle.disable", "true"},
    };
    size_t count = type == RD_KAFKA_CONSUMER ? sizeof settings / sizeof *settings
                                             : sizeof producing / sizeof *producing;
    for (size_t i = 0; i < count; i++) {
        const char **pair = type == RD_KAFKA_CONSUMER ? settings[i] : producing[i];
        if (rd_kafka_conf_set(conf, pair[0], pair[1], why, sizeof why))
            die(pair[0], why);
    }
    rd_kafka_t *made = rd_kafka_new(type, conf, why, sizeof why);
    if (!made)
        die("client", why);
    return made;
}

/* Reads every partition from its end. */
static rd_kafka_t *reader(const char *bootstrap, const char *topic, int partitions) {
    rd_kafka_t *made = client(RD_KAFKA_CONSUMER, bootstrap);
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(partitions);
    for (int p = 0; p < partitions; p++) {
        int64_t low, high;
        rd_kafka_resp_err_t error =
            rd_kafka_query_watermark_offsets(made, topic, p, &low, &high, 10000);
        if (error)
            die(topic, rd_kafka_err2str(error));
        rd_kafka_topic_partition_list_add(all, topic, p)->offset = high;
    }
    rd_kafka_poll_set_consumer(made);
    rd_kafka_resp_err_t error = rd_kafka_assign(made, all);
    if (error)
        die("assign", rd_kafka_err2str(error));
    rd_kafka_topic_partition_list_destroy(all);
    return made;
}

static const char *header(const rd_kafka_message_t *message, const char *name, size_t *size) {
    rd_kafka_headers_t *headers;
    const void *value;
    if (rd_kafka_message_headers(message, &headers) ||
        rd_kafka_header_get_last(headers, name, &value, size))
        die("a record has no header", name);
    return value;
}

static void produce(rd_kafka_t *producer, const char *topic, rd_kafka_headers_t *headers,
                    const void *value, size_t size) {
    rd_kafka_resp_err_t error = rd_kafka_producev(
        producer, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_VALUE((void *)value, size), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
    if (error)
        die(topic, rd_kafka_err2str(error));
    rd_kafka_poll(producer, 0);
}

static void serve(char **words) {
    rd_kafka_t *producer = client(RD_KAFKA_PRODUCER, words[0]);
    rd_kafka_t *commands = reader(words[0], words[1], atoi(words[2]));
    puts("ready");
    fflush(stdout);
    for (;;) {
        rd_kafka_message_t *command = rd_kafka_consumer_poll(commands, 1000);
        if (!command)
            continue;
        if (!command->err) {
            size_t id_size, to_size;
            const char *id = header(command, "correlation-id", &id_size);
            const char *to = header(command, "reply-to", &to_size);
            char topic[256];
            snprintf(topic, sizeof topic, "%.*s", (int)to_size, to);
            rd_kafka_headers_t *headers = rd_kafka_headers_new(2);
            rd_kafka_header_add(headers, "correlation-id", -1, id, (ssize_t)id_size);
            rd_kafka_header_add(headers, ":status", -1, "200", 3);
            produce(producer, topic, headers, command->payload, command->len);
        }
        rd_kafka_message_destroy(command);
    }
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e6 + (double)at.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void ask(char **words) {
    double rate = atof(words[5]), seconds = atof(words[6]);
    rd_kafka_t *producer = client(RD_KAFKA_PRODUCER, words[0]);
    rd_kafka_t *replies = reader(words[0], words[3], atoi(words[4]));
    /* The first commands, one after the other, open connections. They are not measured. */
    size_t warm = 20, count = warm + (size_t)(rate * seconds);
    double *took = calloc(count, sizeof *took), run = now(), start = 0;
    const char *body = "{\"from\":\"account-1\",\"to\":\"account-2\",\"amount\":12345,\"note\":\"for lunch\"}";
    for (size_t n = 0; n < count; n++) {
        if (n == warm)
            start = now();
        double due = n < warm ? now() : start + (double)(n - warm) * 1e6 / rate;
        double left = due - now();
        if (left > 0) {
            struct timespec rest = {(time_t)(left / 1e6), (long)left % 1000000 * 1000};
            nanosleep(&rest, NULL);
        }
        char id[64];
        snprintf(id, sizeof id, "%.0f-%zu", run, n);
        rd_kafka_headers_t *headers = rd_kafka_headers_new(2);
        rd_kafka_header_add(headers, "correlation-id", -1, id, -1);
        rd_kafka_header_add(headers, "reply-to", -1, words[3], -1);
        produce(producer, words[1], headers, body, strlen(body));
        for (int answered = 0; !answered;) {
            rd_kafka_message_t *reply = rd_kafka_consumer_poll(replies, 1000);
            if (!reply)
                continue;
            if (!reply->err) {
                size_t size;
                const char *own = header(reply, "correlation-id", &size);
                answered = size == strlen(id) && !memcmp(own, id, size);
            }
            rd_kafka_message_destroy(reply);
        }
        took[n] = now() - due;
    }
    qsort(took + warm, count - warm, sizeof *took, compare);
    double *measured = took + warm;
    printf("commands %zu\np50_us %.0f\np99_us %.0f\n", count - warm,
           measured[(count - warm) / 2], measured[(count - warm) * 99 / 100]);
}

int main(int count, char **words) {
    if (count == 5 && !strcmp(words[1], "serve"))
        serve(words + 2);
    else if (count == 9 && !strcmp(words[1], "ask"))
        ask(words + 2);
    else
        die("usage", "see the source");
    return 0;
}
