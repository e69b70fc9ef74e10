// The @NAME@ service: reads commands, and writes replies and state. docs/writing-a-service.md explains it.
//
//   npm install --no-audit --no-fund
//   node service.mjs
import { Kafka, Partitioners, logLevel } from 'kafkajs'

const broker = process.env.KAFKA ?? '127.0.0.1:9092'
const [COMMANDS, REPLIES, STATE, SERVICE] = ['@NAME@-commands', '@NAME@-replies', '@STATE@', '@NAME@-service']
// A duplicate of a command arrives within twice the gateway's `kafka.delivery_timeout` (30 s).
const REMEMBER_MS = 120_000

@DECIDE@

const kafka = new Kafka({ clientId: SERVICE, brokers: broker.split(','), logLevel: logLevel.ERROR })
const header = (record, name) => record.headers[name]?.toString() ?? ''

// Calls `use` for every record of a topic, up to its end.
async function readAll(topic, use) {
  const admin = kafka.admin()
  await admin.connect()
  const ends = (await admin.fetchTopicOffsets(topic)).filter((it) => it.high !== it.low)
  await admin.disconnect()
  const unread = new Map(ends.map((it) => [it.partition, BigInt(it.high)]))
  const consumer = kafka.consumer({ groupId: `${SERVICE}-${process.pid}-${Date.now()}` })
  const done = new Promise((resolve) => {
    if (unread.size === 0) resolve()
    // The event also comes for a batch of markers of transactions, which `eachMessage` does not see.
    consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
      if (BigInt(payload.lastOffset) + 1n >= unread.get(payload.partition)) unread.delete(payload.partition)
      if (unread.size === 0) resolve()
    })
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => use(message) })
  await done
  await consumer.disconnect()
}

const partitioner = { createPartitioner: Partitioners.DefaultPartitioner }
const producer = kafka.producer({ transactionalId: SERVICE, idempotent: true, maxInFlightRequests: 1, ...partitioner })
await producer.connect() // Ends an earlier process: only one may write.

const state = new Map()
const replies = new Map()
await readAll(STATE, (it) => it.value && state.set(it.key.toString(), JSON.parse(it.value)))
await readAll(REPLIES, (it) => {
  const reply = { time: Number(it.timestamp), status: header(it, ':status'), body: it.value }
  replies.set(header(it, 'correlation-id'), reply)
})

// The reply, and the state that changed. A duplicate gets the first reply.
function execute(command) {
  const correlation = header(command, 'correlation-id')
  if (replies.has(correlation)) return { reply: replies.get(correlation), changes: {} }
  let body = null
  try {
    body = JSON.parse(command.value ?? '{}')
  } catch {}
  const decided = decide(header(command, 'operation'), command.key.toString(), body, state)
  const time = Number(command.timestamp)
  for (const [id, old] of replies) {
    if (time - old.time <= REMEMBER_MS) break
    replies.delete(id)
  }
  const reply = { time, status: String(decided.status), body: JSON.stringify(decided.body) }
  replies.set(correlation, reply)
  return { reply, changes: decided.changes ?? {} }
}

async function onCommand(partition, command) {
  if (!header(command, 'correlation-id')) return
  // Reply, state and offset are one transaction: all of them, or none.
  const transaction = await producer.transaction()
  const { reply, changes } = execute(command)
  const headers = { 'correlation-id': header(command, 'correlation-id'), ':status': reply.status }
  headers['content-type'] = 'application/json'
  const messages = [{ key: command.key, value: reply.body, headers }]
  await transaction.send({ topic: header(command, 'reply-to'), messages })
  for (const [key, value] of Object.entries(changes)) {
    state.set(key, value)
    await transaction.send({ topic: STATE, messages: [{ key, value: JSON.stringify(value) }] })
  }
  const partitions = [{ partition, offset: String(BigInt(command.offset) + 1n) }]
  await transaction.sendOffsets({ consumerGroupId: SERVICE, topics: [{ topic: COMMANDS, partitions }] })
  await transaction.commit()
  console.log(`${header(command, ':method')} ${header(command, ':path')}: ${reply.status}`)
}

// After a kill, the group waits this long for the earlier process: kafkajs has no instance ids.
const sessionTimeout = 6_000
const consumer = kafka.consumer({ groupId: SERVICE, maxWaitTimeInMs: 50, sessionTimeout, heartbeatInterval: 2_000 })
await consumer.connect()
await consumer.subscribe({ topic: COMMANDS, fromBeginning: true })
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ partition, message }) => {
    // After an error the process ends, and the next one reads state and replies again.
    await onCommand(partition, message).catch((error) => (console.error(error), process.exit(1)))
  },
})
console.log(`${SERVICE} reads ${COMMANDS}`)
