// The SSE clients of npm, each used as its own documentation shows.
//
//   node client.mjs NAME URL
//
// prints one line of JSON for each event that the library dispatches: {"id", "event", "data"}. A
// library without reconnection is called in a loop with the last id that the library reported.
import { setTimeout as sleep } from 'node:timers/promises'

const [name, url] = process.argv.slice(2)
// Every event type of a stream (docs/http.md, "Events"): an EventSource dispatches by type.
const TYPES = ['message', 'base64', 'delete', 'gap', 'position']

const show = (id, event, data) => console.log(JSON.stringify({ id, event, data }))

function listen(EventSource) {
  const source = new EventSource(url)
  for (const type of TYPES) {
    source.addEventListener(type, (event) => show(event.lastEventId, event.type, event.data))
  }
  // Without a listener some of them throw.
  source.addEventListener('error', (event) => console.error('error', event.message ?? event.type))
}

async function parse() {
  const { createParser } = await import('eventsource-parser')
  let lastId
  let wait = 100
  for (;;) {
    const parser = createParser({
      onEvent(event) {
        lastId = event.id ?? lastId
        show(lastId, event.event ?? 'message', event.data)
      },
      onRetry(milliseconds) {
        wait = milliseconds
      },
    })
    try {
      const headers = { accept: 'text/event-stream' }
      if (lastId !== undefined) headers['last-event-id'] = lastId
      const response = await fetch(url, { headers })
      if (response.status === 200) {
        const text = response.body.pipeThrough(new TextDecoderStream())
        for await (const chunk of text) parser.feed(chunk)
      }
    } catch (error) {
      console.error('error', error.message)
    }
    await sleep(wait)
  }
}

const clients = {
  'eventsource-2': async () => listen((await import('eventsource-2')).default),
  'eventsource-3': async () => listen((await import('eventsource-3')).EventSource),
  'eventsource-5': async () => listen((await import('eventsource-5')).EventSource),
  'eventsource-parser': parse,
  launchdarkly: async () => listen((await import('launchdarkly-eventsource')).default.EventSource),
  undici: async () => listen((await import('undici')).EventSource),
}

// A library may let the process end while it waits to reconnect.
setInterval(() => {}, 1 << 30)
await clients[name]()
