import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.messaging.handler.annotation.Payload;
import org.springframework.messaging.handler.annotation.SendTo;

/**
 * A service as Spring's documentation writes one: {@code @KafkaListener} with {@code @SendTo}. It
 * knows nothing of the gateway: Spring copies the correlation id and finds the reply topic in the
 * request. {@code java OrderService BOOTSTRAP TOPIC}.
 */
@Configuration
@EnableKafka
public class OrderService {
  private static String bootstrap;

  public static void main(String[] arguments) throws InterruptedException {
    bootstrap = arguments[0];
    System.setProperty("commands", arguments[1]);
    new AnnotationConfigApplicationContext(OrderService.class);
    Thread.currentThread().join();
  }

  @KafkaListener(topics = "${commands}", groupId = "${commands}")
  @SendTo
  public String order(@Payload String order) {
    return "ordered " + order;
  }

  @Bean
  public ConcurrentKafkaListenerContainerFactory<String, String> kafkaListenerContainerFactory() {
    var factory = new ConcurrentKafkaListenerContainerFactory<String, String>();
    Map<String, Object> consumer =
        Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
            ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
            ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class,
            ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
    factory.setConsumerFactory(new DefaultKafkaConsumerFactory<>(consumer));
    factory.setReplyTemplate(template());
    return factory;
  }

  @Bean
  public KafkaTemplate<String, String> template() {
    Map<String, Object> producer =
        Map.of(
            ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
            ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class,
            ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
    return new KafkaTemplate<>(new DefaultKafkaProducerFactory<>(producer));
  }
}
