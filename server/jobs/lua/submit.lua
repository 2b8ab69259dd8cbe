-- KEYS[5] idempotency key. ARGV: job id, depth limit, deadline after ms, fingerprint ('' is none), its ttl ms,
-- then the job's fields in pairs. Repeating a call with the same job id changes nothing.
-- Returns {'accepted'} | {'replayed', id} | {'conflict', id} | {'full', jobs}.
local id, depth, deadline, fingerprint = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'accepted'}
end
if fingerprint ~= '' then
  local known = redis.call('HMGET', KEYS[5], 'fingerprint', 'job')
  if known[1] then
    return {known[1] == fingerprint and 'replayed' or 'conflict', known[2]}
  end
end
local jobs = redis.call('XLEN', KEYS[3])
if jobs >= depth then
  return {'full', jobs}
end
redis.call('HSET', KEYS[1], unpack(ARGV, 6))
local entry = redis.call('XADD', KEYS[3], '*', 'job', id)
redis.call('HSET', KEYS[1], 'state', 'queued', 'entry', entry, 'created', now,
  'deadline', deadline > 0 and now + deadline or 0)
-- The source picture of an edit was stored before, for a short while: with the job it stays.
if field('source') ~= '' then
  redis.call('PERSIST', field('source'))
end
append('queued', '{}')
if fingerprint ~= '' then
  redis.call('HSET', KEYS[5], 'fingerprint', fingerprint, 'job', id)
  redis.call('PEXPIRE', KEYS[5], ARGV[5])
end
return {'accepted'}
