    /** The reply's status and body, and the accounts that change. */
    Decision decide(String operation, String account, JsonNode body) {
        var payee = body.path("to").asText();
        var amount = body.path("amount_cents").isInt() ? body.path("amount_cents").asLong() : 0;
        if (!operation.equals("pay") || payee.isEmpty() || amount <= 0 || payee.equals(account)) {
            var why = "`to` names another account, `amount_cents` is a positive integer";
            return new Decision(422, JSON.createObjectNode().put("title", why), Map.of());
        }
        var balance = balance(account);
        if (balance < amount) {
            var why = JSON.createObjectNode().put("title", "insufficient funds").put("balance_cents", balance);
            return new Decision(409, why, Map.of());
        }
        var payer = JSON.createObjectNode().put("account", account).put("balance_cents", balance - amount);
        var other = JSON.createObjectNode().put("account", payee).put("balance_cents", balance(payee) + amount);
        var paid = payer.deepCopy().put("paid_cents", amount);
        return new Decision(201, paid, Map.of(account, payer, payee, other));
    }

    long balance(String account) {
        return state.containsKey(account) ? state.get(account).path("balance_cents").asLong() : 100_000;
    }
