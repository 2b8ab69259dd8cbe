-- Joined in front of the scripts that may end a job, behind `storage`.

-- What nobody asks for of a job that has ended.
local OF_ACTIVE_JOBS = {'share', 'rows', 'work', 'done', 'nonce', 'base', 'anew', 'trace'}

-- The one way for a job to end: out of the queue, terminal event, result, lifetimes, tombstone. `num_bytes` is what was
-- stored besides for as long as the result. It leaves the queue first, since that takes no memory: what has begun to
-- write is not stopped by a Redis that is full.
local function conclude(group, state, body, result_ttl, tombstone_ttl, num_bytes)
  leave_queue(group, field('entry'))
  redis.call('ZREM', KEYS[6], field('id'))
  if field('share') ~= '' then
    redis.call('SREM', field('share'), field('id'))
  end
  local source = field('source')
  if source ~= '' and state == 'canceled' and field('started') == '' then
    redis.call('DEL', source) -- nobody goes on with it, and nothing came of it
    source = ''
  elseif source ~= '' then
    redis.call('PEXPIRE', source, result_ttl)
  end
  local outputs = 'out:' .. field('id')
  redis.call('DEL', 'val:' .. field('id')) -- nobody goes on from them
  redis.call('HSET', KEYS[1], 'state', state, 'finished', now, 'result', body)
  redis.call('HDEL', KEYS[1], unpack(OF_ACTIVE_JOBS))
  append(state, body)
  redis.call('SET', KEYS[4], state .. ' ' .. field('tenant'), 'PX', tombstone_ttl)
  local storage = storage_key(field('tenant'))
  forget_expired(storage)
  release_active(storage)
  charge_for(storage, result_ttl, bytes_of(KEYS[1], KEYS[2], KEYS[5], source, outputs) + (num_bytes or 0))
  charge_for(storage, tombstone_ttl, bytes_of(KEYS[4]))
  redis.call('PEXPIRE', KEYS[1], result_ttl)
  redis.call('PEXPIRE', KEYS[2], result_ttl)
  redis.call('PEXPIRE', KEYS[5], result_ttl)
  redis.call('PEXPIRE', outputs, result_ttl)
end
