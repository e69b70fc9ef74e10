/*
 * librdkafka as the tests' other client: what kcat can't do. A line in, a line out.
 *
 *   rdk produce BOOTSTRAP TOPIC [setting=value]...
 *     reads  P <tag> <partition or -> <key> <value> [name or name=value]...
 *            B | C | A          begin, commit, abort (with transactional.id set)
 *     prints ok <tag> <partition> <offset> | no <tag> <error> | done <B, C or A>
 *     The end of its input is the order to flush and end.
 *   rdk consume BOOTSTRAP TOPIC [setting=value]...
 *     prints R <partition> <offset> <timestamp> <key> <value> [name or name=value]...
 *     from the start of every partition there is now, for ever; ends with its input.
 *
 * Fields are separated by tabs; what could be mistaken is written %XX; null is a lone ~.
 */
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *form, ...) {
    va_list rest;
    va_start(rest, form);
    vfprintf(stderr, form, rest);
    va_end(rest);
    fputc('\n', stderr);
    exit(1);
}

static void put(const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    if (!bytes) {
        putchar('~');
        return;
    }
    for (size_t i = 0; i < size; i++) {
        if (at[i] <= ' ' || at[i] >= '~' || at[i] == '%' || at[i] == '=')
            printf("%%%02X", at[i]);
        else
            putchar(at[i]);
    }
}

/* Turns %XX into bytes, in place. Gives NULL for null. */
static char *unescape(char *text, size_t *size) {
    char *to = text, *from = text;
    if (!strcmp(text, "~")) {
        *size = 0;
        return NULL;
    }
    while (*from) {
        unsigned int byte;
        if (*from == '%' && sscanf(from + 1, "%2x", &byte) == 1) {
            *to++ = (char)byte;
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    *size = (size_t)(to - text);
    return text;
}

static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *conf, char **settings) {
    char why[512];
    for (; *settings; settings++) {
        char *equals = strchr(*settings, '=');
        if (!equals)
            die("%s: a setting is name=value", *settings);
        *equals = 0;
        if (rd_kafka_conf_set(conf, *settings, equals + 1, why, sizeof why) != RD_KAFKA_CONF_OK)
            die("%s", why);
    }
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);
    if (!rk)
        die("%s", why);
    return rk;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
    (void)rk, (void)opaque;
    flockfile(stdout);
    const char *tag = message->_private;
    if (message->err)
        printf("no\t%s\t%s\n", tag, rd_kafka_err2name(message->err));
    else
        printf("ok\t%s\t%d\t%lld\n", tag, message->partition, (long long)message->offset);
    fflush(stdout);
    funlockfile(stdout);
    free(message->_private);
}

static void *poll_for_ever(void *rk) {
    for (;;)
        rd_kafka_poll(rk, 100);
    return NULL;
}

static void produce(rd_kafka_t *rk, const char *topic, char *line) {
    char *tag = strsep(&line, "\t"), *partition = strsep(&line, "\t");
    char *key = strsep(&line, "\t"), *value = strsep(&line, "\t");
    if (!tag || !partition || !key || !value)
        die("P needs a tag, a partition, a key and a value");
    size_t key_size, value_size, size;
    key = unescape(key, &key_size);
    value = unescape(value, &value_size);
    rd_kafka_headers_t *headers = rd_kafka_headers_new(4);
    for (char *field; (field = strsep(&line, "\t"));) {
        char *text = strchr(field, '=');
        if (text)
            *text++ = 0;
        char *name = unescape(field, &size);
        size_t name_size = size;
        char *bytes = text ? unescape(text, &size) : NULL;
        rd_kafka_header_add(headers, name, name_size, bytes, bytes ? (ssize_t)size : 0);
    }
    for (;;) {
        rd_kafka_headers_t *copy = rd_kafka_headers_copy(headers);
        char *own = strdup(tag);
        rd_kafka_resp_err_t error = rd_kafka_producev(
            rk, RD_KAFKA_V_TOPIC(topic),
            RD_KAFKA_V_PARTITION(*partition == '-' ? RD_KAFKA_PARTITION_UA : atoi(partition)),
            RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_VALUE(value, value_size),
            RD_KAFKA_V_HEADERS(copy), RD_KAFKA_V_OPAQUE(own),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        if (!error)
            break;
        rd_kafka_headers_destroy(copy);
        free(own);
        if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            printf("no\t%s\t%s\n", tag, rd_kafka_err2name(error));
            fflush(stdout);
            break;
        }
        rd_kafka_poll(rk, 20);
    }
    rd_kafka_headers_destroy(headers);
}

static void check(rd_kafka_error_t *error) {
    if (error)
        die("%s", rd_kafka_error_string(error));
}

static int run_producer(const char *topic, rd_kafka_conf_t *conf, char **settings) {
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    char id[128];
    size_t id_size = sizeof id;
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, conf, settings);
    int transactional =
        rd_kafka_conf_get(rd_kafka_conf(rk), "transactional.id", id, &id_size) == RD_KAFKA_CONF_OK;
    if (transactional)
        check(rd_kafka_init_transactions(rk, 30000));
    pthread_t thread;
    if (pthread_create(&thread, NULL, poll_for_ever, rk))
        die("no thread");
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    while ((size = getline(&line, &room, stdin)) > 0) {
        if (line[size - 1] == '\n')
            line[size - 1] = 0;
        switch (line[0]) {
        case 'P': produce(rk, topic, line + 2); continue;
        case 'B': check(rd_kafka_begin_transaction(rk)); break;
        case 'C': check(rd_kafka_commit_transaction(rk, 30000)); break;
        case 'A':
            /* An abort would purge what has not been sent; it shall be in the log. */
            rd_kafka_flush(rk, 30000);
            check(rd_kafka_abort_transaction(rk, 30000));
            break;
        default: die("what is %s", line);
        }
        flockfile(stdout);
        printf("done\t%c\n", line[0]);
        fflush(stdout);
        funlockfile(stdout);
    }
    return rd_kafka_flush(rk, 60000) ? 1 : 0;
}

static void *end_with_input(void *nothing) {
    while (getchar() != EOF)
        ;
    _exit(0);
    return nothing;
}

static void print(const rd_kafka_message_t *message) {
    rd_kafka_timestamp_type_t type;
    long long time = (long long)rd_kafka_message_timestamp(message, &type);
    printf("R\t%d\t%lld\t%lld\t", message->partition, (long long)message->offset, time);
    put(message->key, message->key_len);
    putchar('\t');
    put(message->payload, message->len);
    rd_kafka_headers_t *headers;
    if (!rd_kafka_message_headers(message, &headers)) {
        const char *name;
        const void *value;
        size_t size;
        for (size_t i = 0; !rd_kafka_header_get_all(headers, i, &name, &value, &size); i++) {
            putchar('\t');
            put(name, strlen(name));
            if (value) {
                putchar('=');
                put(value, size);
            }
        }
    }
    putchar('\n');
    fflush(stdout);
}

_Noreturn static void run_consumer(const char *topic, rd_kafka_conf_t *conf, char **settings) {
    char why[512];
    rd_kafka_conf_set(conf, "group.id", "rdk", why, sizeof why);
    rd_kafka_conf_set(conf, "enable.auto.commit", "false", why, sizeof why);
    rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, conf, settings);
    rd_kafka_poll_set_consumer(rk);
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, topic, NULL);
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t error = rd_kafka_metadata(rk, 0, handle, &metadata, 30000);
    if (error || metadata->topic_cnt != 1 || metadata->topics[0].err)
        die("%s: no metadata: %s", topic, rd_kafka_err2name(error));
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(8);
    for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
        rd_kafka_topic_partition_list_add(all, topic, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
    error = rd_kafka_assign(rk, all);
    if (error)
        die("assign: %s", rd_kafka_err2name(error));
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_with_input, NULL))
        die("no thread");
    for (;;) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, 1000);
        if (!message)
            continue;
        /* Errors pass: it goes on by itself, or the test sees that nothing comes. */
        if (!message->err)
            print(message);
        else
            fprintf(stderr, "%s\n", rd_kafka_message_errstr(message));
        rd_kafka_message_destroy(message);
    }
}

int main(int count, char **words) {
    if (count < 4)
        die("rdk produce|consume BOOTSTRAP TOPIC [setting=value]...");
    char why[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (rd_kafka_conf_set(conf, "bootstrap.servers", words[2], why, sizeof why))
        die("%s", why);
    if (!strcmp(words[1], "produce"))
        return run_producer(words[3], conf, words + 4);
    if (!strcmp(words[1], "consume"))
        run_consumer(words[3], conf, words + 4);
    die("what is %s", words[1]);
}
