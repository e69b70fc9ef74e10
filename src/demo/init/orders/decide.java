    /** The reply's status and body, and the order if it changes. */
    Decision decide(String operation, String order, JsonNode body) {
        var now = state.get(order);
        if (operation.equals("place")) {
            if (!body.path("item").isTextual()) return refuse(422, "`item` is a text");
            if (now != null) return refuse(409, "the order exists");
            var placed = JSON.createObjectNode().put("order", order).put("item", body.path("item").asText());
            placed.put("status", "placed");
            return new Decision(201, placed, Map.of(order, placed));
        }
        if (operation.equals("ship")) {
            if (now == null || !now.path("status").asText().equals("placed")) return refuse(409, "there is no order to ship");
            var shipped = now.deepCopy().put("status", "shipped");
            return new Decision(200, shipped, Map.of(order, shipped));
        }
        return refuse(422, "unknown operation " + operation);
    }

    static Decision refuse(int status, String why) {
        return new Decision(status, JSON.createObjectNode().put("title", why), Map.of());
    }
