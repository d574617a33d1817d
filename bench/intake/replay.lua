-- For wrk: replays requests that were signed before the clock ran, each exactly once. A thread has a part of its own, and
-- when it has sent the last line of it, it sends nothing more: the same request again would be a cheaper one.
--
--   wrk ... --script replay.lua URL -- PARTS PAUSE_MS
--
-- Thread n reads the file PARTS.n, of lines `INSTANCE_ID SIGNATURE BODY`. With PAUSE_MS above zero each connection waits
-- before each request, exponentially distributed with that mean. The last line of the output is the run as JSON.

local threads = {}

local INSTANCE_ID_ENDS, SIGNATURE_ENDS = 36, 36 + 1 + 128

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(arguments)
  part = assert(io.open(arguments[1] .. "." .. number, "r"))
  local pause_ms = tonumber(arguments[2])
  if pause_ms > 0 then
    math.randomseed(number + 1)
    -- wrk waits whole milliseconds: rounded up or down by chance, so that the mean is kept
    function delay() return math.floor(-pause_ms * math.log(1 - math.random()) + math.random()) end
  end
  start = "POST " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\nContent-Length: "
  -- wrk asks thread 0 for a request that it only looks at
  sent, ran_out, statuses = number == 0 and -1 or 0, 0, {}
end

function request()
  local line = part:read("*l")
  if not line then
    ran_out = 1
    return ""
  end
  sent = sent + 1
  return start .. (#line - SIGNATURE_ENDS - 1)
    .. "\r\nX-Instance-Id: " .. line:sub(1, INSTANCE_ID_ENDS)
    .. "\r\nX-Signature: " .. line:sub(INSTANCE_ID_ENDS + 2, SIGNATURE_ENDS)
    .. "\r\n\r\n" .. line:sub(SIGNATURE_ENDS + 2)
end

function response(status)
  local key = tostring(status)
  statuses[key] = (statuses[key] or 0) + 1
end

function done(summary, latency)
  local sent, ran_out, statuses = 0, 0, {}
  for _, thread in ipairs(threads) do
    sent, ran_out = sent + thread:get("sent"), ran_out + thread:get("ran_out")
    for status, count in pairs(thread:get("statuses")) do statuses[status] = (statuses[status] or 0) + count end
  end
  local counted = {}
  for status, count in pairs(statuses) do table.insert(counted, string.format('"%s":%d', status, count)) end
  local errors = summary.errors
  print(string.format(
    '{"seconds":%.6f,"sent":%d,"ran_out":%d,"failures":%d,"p50_ms":%.3f,"p99_ms":%.3f,"statuses":{%s}}',
    summary.duration / 1e6, sent, ran_out, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, table.concat(counted, ",")))
end
