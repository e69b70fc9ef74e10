/* librdkafka doing the same: BOOTSTRAP TOPIC SIZE WARM_UP RECORDS. Microseconds, one a line. Set for
 * latency: no linger, no Nagle; idempotent and acks=all, as we are. */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long long micros(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
  char why[512];
  if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
    fail(why);
}

static rd_kafka_t *client(rd_kafka_type_t type, const char *bootstrap) {
  char why[512];
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  set(conf, "bootstrap.servers", bootstrap);
  set(conf, "socket.nagle.disable", "true");
  if (type == RD_KAFKA_PRODUCER) {
    set(conf, "linger.ms", "0");
    set(conf, "enable.idempotence", "true");
  } else {
    set(conf, "group.id", "rivals");
    set(conf, "enable.auto.commit", "false");
    set(conf, "fetch.wait.max.ms", "500");
    set(conf, "auto.offset.reset", "error");
  }
  rd_kafka_t *made = rd_kafka_new(type, conf, why, sizeof why);
  if (!made)
    fail(why);
  return made;
}

int main(int argc, char **argv) {
  if (argc != 6)
    fail("BOOTSTRAP TOPIC SIZE WARM_UP RECORDS");
  const char *topic = argv[2];
  size_t size = strtoul(argv[3], NULL, 10);
  int warm_up = atoi(argv[4]), records = atoi(argv[5]);
  rd_kafka_t *producer = client(RD_KAFKA_PRODUCER, argv[1]);
  rd_kafka_t *consumer = client(RD_KAFKA_CONSUMER, argv[1]);
  rd_kafka_poll_set_consumer(consumer);
  int64_t low, high;
  if (rd_kafka_query_watermark_offsets(consumer, topic, 0, &low, &high, 10000))
    fail("no end of the log");
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(list, topic, 0)->offset = high;
  if (rd_kafka_assign(consumer, list))
    fail("not assigned");
  char *value = malloc(size);
  for (int n = 0; n < warm_up + records; n++) {
    memset(value, 'a' + n % 23, size);
    long long asked = micros();
    rd_kafka_resp_err_t error = rd_kafka_producev(
        producer, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_VALUE(value, size),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (error)
      fail(rd_kafka_err2str(error));
    rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 30000);
    long long took = micros() - asked;
    if (!message || message->err || message->len != size)
      fail(message ? rd_kafka_err2str(message->err) : "no record");
    rd_kafka_message_destroy(message);
    rd_kafka_poll(producer, 0);
    if (rd_kafka_flush(producer, 10000))
      fail("not acknowledged");
    if (n >= warm_up)
      printf("%lld\n", took);
  }
  return 0; /* The process ends: no clean-up that could take its time. */
}
