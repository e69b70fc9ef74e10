// The reply's status and body, and the order if it changes.
function decide(operation, order, body, state) {
  const now = state.get(order)
  if (operation === 'place') {
    if (typeof body?.item !== 'string') return { status: 422, body: { title: '`item` is a text' } }
    if (now) return { status: 409, body: { title: 'the order exists', ...now } }
    const placed = { order, item: body.item, status: 'placed' }
    return { status: 201, body: placed, changes: { [order]: placed } }
  }
  if (operation === 'ship') {
    if (now?.status !== 'placed') return { status: 409, body: { title: 'there is no order to ship' } }
    const shipped = { ...now, status: 'shipped' }
    return { status: 200, body: shipped, changes: { [order]: shipped } }
  }
  return { status: 422, body: { title: `unknown operation ${operation}` } }
}
