// A reverse proxy in Express behind `compression()`, as it is common in Node.js:
//
//   node express.mjs PORT UPSTREAM-PORT
//
// http-proxy-middleware 3 and older (on http-proxy 1.18) are not fit for streams: when the connection
// to the gateway is cut, they leave the client's connection open for ever.
import compression from 'compression'
import express from 'express'
import { createProxyMiddleware } from 'http-proxy-middleware'

const [port, upstream] = process.argv.slice(2).map(Number)
const app = express()
app.use(compression())
app.use(createProxyMiddleware({ target: `http://127.0.0.1:${upstream}` }))
app.listen(port, '127.0.0.1')
