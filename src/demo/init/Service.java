// The @NAME@ service: reads commands, and writes replies and state. docs/writing-a-service.md explains it.
//
//   mvn -q dependency:copy-dependencies -DoutputDirectory=jars
//   java -cp 'jars/*' Service.java

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class Service {
    static final String KAFKA = Optional.ofNullable(System.getenv("KAFKA")).orElse("127.0.0.1:9092");
    static final String COMMANDS = "@NAME@-commands", REPLIES = "@NAME@-replies", STATE = "@STATE@";
    static final String SERVICE = "@NAME@-service";
    // A duplicate of a command arrives within twice the gateway's `kafka.delivery_timeout` (30 s).
    static final long REMEMBER_MS = 120_000;
    static final ObjectMapper JSON = new ObjectMapper();

    record Decision(int status, ObjectNode body, Map<String, ObjectNode> changes) {}

    record Reply(long time, String status, byte[] body) {}

    final Map<String, ObjectNode> state = new HashMap<>();
    final LinkedHashMap<String, Reply> replies = new LinkedHashMap<>();

@DECIDE@

    static KafkaConsumer<String, byte[]> consumer() {
        // By its instance id, a restarted process takes the place of the earlier one in the group at once.
        return new KafkaConsumer<>(
            Map.of("bootstrap.servers", KAFKA, "group.id", SERVICE, "group.instance.id", SERVICE,
                "enable.auto.commit", false, "auto.offset.reset", "earliest", "isolation.level", "read_committed", "fetch.max.wait.ms", 50),
            new StringDeserializer(), new ByteArrayDeserializer());
    }

    /** Every record of a topic, up to its end. */
    static List<ConsumerRecord<String, byte[]>> readAll(String topic) {
        var records = new ArrayList<ConsumerRecord<String, byte[]>>();
        try (var reader = consumer()) {
            var partitions = reader.partitionsFor(topic).stream()
                .map(it -> new TopicPartition(topic, it.partition())).toList();
            reader.assign(partitions);
            reader.seekToBeginning(partitions);
            var ends = reader.endOffsets(partitions);
            while (partitions.stream().anyMatch(it -> reader.position(it) < ends.get(it))) {
                reader.poll(Duration.ofMillis(100)).forEach(records::add);
            }
        }
        return records;
    }

    static String header(ConsumerRecord<String, byte[]> record, String name) {
        var header = record.headers().lastHeader(name);
        return header == null ? "" : new String(header.value());
    }

    /** Executes a command. A duplicate gets the first reply, and changes nothing. */
    Reply execute(ConsumerRecord<String, byte[]> command, Map<String, ObjectNode> changes) throws IOException {
        var correlation = header(command, "correlation-id");
        if (replies.containsKey(correlation)) return replies.get(correlation);
        JsonNode body = JSON.createObjectNode();
        try {
            if (command.value() != null) body = JSON.readTree(command.value());
        } catch (IOException notJson) {
            // `decide` refuses a body without members.
        }
        var decision = decide(header(command, "operation"), command.key(), body);
        changes.putAll(decision.changes());
        var oldest = replies.entrySet().iterator();
        while (oldest.hasNext() && command.timestamp() - oldest.next().getValue().time() > REMEMBER_MS) oldest.remove();
        var reply = new Reply(command.timestamp(), "" + decision.status(), JSON.writeValueAsBytes(decision.body()));
        replies.put(correlation, reply);
        return reply;
    }

    public static void main(String[] arguments) throws IOException {
        new Service().run();
    }

    void run() throws IOException {
        var producer = new KafkaProducer<>(
            Map.of("bootstrap.servers", KAFKA, "transactional.id", SERVICE),
            new StringSerializer(), new ByteArraySerializer());
        producer.initTransactions(); // Ends an earlier process: only one may write.
        for (var it : readAll(STATE)) if (it.value() != null) state.put(it.key(), (ObjectNode) JSON.readTree(it.value()));
        for (var it : readAll(REPLIES)) {
            replies.put(header(it, "correlation-id"), new Reply(it.timestamp(), header(it, ":status"), it.value()));
        }
        var consumer = consumer();
        consumer.subscribe(List.of(COMMANDS));
        System.out.println(SERVICE + " reads " + COMMANDS);
        while (true) {
            for (var command : consumer.poll(Duration.ofSeconds(1))) {
                if (header(command, "correlation-id").isEmpty()) continue;
                // Reply, state and offset are one transaction: all of them, or none. After an error the
                // process ends, and the next one reads state and replies again.
                producer.beginTransaction();
                var changes = new LinkedHashMap<String, ObjectNode>();
                var reply = execute(command, changes);
                var record = new ProducerRecord<>(header(command, "reply-to"), command.key(), reply.body());
                record.headers().add("correlation-id", header(command, "correlation-id").getBytes());
                record.headers().add(":status", reply.status().getBytes());
                record.headers().add("content-type", "application/json".getBytes());
                producer.send(record);
                for (var change : changes.entrySet()) {
                    state.put(change.getKey(), change.getValue());
                    producer.send(new ProducerRecord<>(STATE, change.getKey(), JSON.writeValueAsBytes(change.getValue())));
                }
                var partition = new TopicPartition(COMMANDS, command.partition());
                var next = Map.of(partition, new OffsetAndMetadata(command.offset() + 1));
                producer.sendOffsetsToTransaction(next, consumer.groupMetadata());
                producer.commitTransaction();
                System.out.println(header(command, ":method") + " " + header(command, ":path") + ": " + reply.status());
            }
        }
    }
}
