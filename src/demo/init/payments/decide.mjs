// The reply's status and body, and the accounts that change.
function decide(operation, account, body, state) {
  const { to, amount_cents: amount } = body ?? {}
  if (operation !== 'pay' || typeof to !== 'string' || !Number.isInteger(amount) || amount <= 0 || to === account) {
    return { status: 422, body: { title: '`to` names another account, `amount_cents` is a positive integer' } }
  }
  const balance = (name) => state.get(name)?.balance_cents ?? 100_000
  if (balance(account) < amount) {
    return { status: 409, body: { title: 'insufficient funds', balance_cents: balance(account) } }
  }
  const payer = { account, balance_cents: balance(account) - amount }
  const changes = { [account]: payer, [to]: { account: to, balance_cents: balance(to) + amount } }
  return { status: 201, body: { paid_cents: amount, ...payer }, changes }
}
